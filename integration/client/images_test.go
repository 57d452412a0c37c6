package client

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func target(n int, annotations ...string) ocispec.Descriptor {
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest,
		Digest:    numbered(n),
		Size:      int64(100 + n),
	}
	if len(annotations) > 0 {
		desc.Annotations = pairs(annotations)
	}
	return desc
}

func TestImageCreate(t *testing.T) {
	s := begin(t)
	store := s.client.ImageService()
	before := time.Now()
	made, err := store.Create(s.ctx, images.Image{
		Name:      "docker.io/library/a:1",
		Target:    target(1, "note", "n"),
		Labels:    map[string]string{"k": "v", "empty": ""},
		CreatedAt: time.Unix(1, 0),
	})
	s.must(err)
	s.equal("name", made.Name, "docker.io/library/a:1")
	s.equal("target", made.Target, target(1, "note", "n"))
	s.equal("labels, but for the empty one", made.Labels, map[string]string{"k": "v"})
	if made.CreatedAt.Before(before.Add(-time.Second)) || !made.UpdatedAt.Equal(made.CreatedAt) {
		s.Errorf("times are the client's or differ: %v %v", made.CreatedAt, made.UpdatedAt)
	}
	got, err := store.Get(s.bare, "docker.io/library/a:1")
	s.must(err)
	s.equal("what Get finds", got, made)
	_, err = store.Get(s.bare, "b")
	s.fails("get of a missing one", err, errdefs.ErrNotFound)
	_, err = store.Create(s.ctx, images.Image{Name: "docker.io/library/a:1", Target: target(2)})
	s.fails("twice", err, errdefs.ErrAlreadyExists)
	// Its target need not be there, and it may be called anything.
	_, err = store.Create(s.ctx, images.Image{Name: "any thing/at all ", Target: target(3)})
	s.must(err)
}

func TestImageCreateOfWhatIsNone(t *testing.T) {
	s := begin(t)
	store := s.client.ImageService()
	change := func(change func(*images.Image)) images.Image {
		image := images.Image{Name: "a", Target: target(1)}
		change(&image)
		return image
	}
	long := strings.Repeat("v", 4096)
	for what, image := range map[string]images.Image{
		"no name":           change(func(i *images.Image) { i.Name = "" }),
		"no digest":         change(func(i *images.Image) { i.Target.Digest = "" }),
		"nonsense":          change(func(i *images.Image) { i.Target.Digest = "sha256:12" }),
		"no size":           change(func(i *images.Image) { i.Target.Size = 0 }),
		"a size below 0":    change(func(i *images.Image) { i.Target.Size = -1 }),
		"no media type":     change(func(i *images.Image) { i.Target.MediaType = "" }),
		"an overlong label": change(func(i *images.Image) { i.Labels = map[string]string{"k": long} }),
	} {
		_, err := store.Create(s.ctx, image)
		s.fails(what, err, errdefs.ErrInvalidArgument)
	}
	// A key and its value may have 4096 bytes together.
	_, err := store.Create(s.ctx, change(func(i *images.Image) {
		i.Labels = map[string]string{"k": long[1:]}
	}))
	s.must(err)
	s.equal("what is left", s.left(), words("image:a lease:hold"))
}

func TestImageUpdateByMasks(t *testing.T) {
	s := begin(t)
	store := s.client.ImageService()
	both := map[string]string{"k": "v", "a.b/c": "1"}
	for name, test := range map[string]struct {
		mask   []string
		target ocispec.Descriptor
		labels map[string]string
	}{
		// Without a mask everything is what it is in the request.
		"none":              {nil, target(2, "note", "m"), map[string]string{"k": "w", "new": "x"}},
		"labels":            {[]string{"labels"}, target(1, "note", "n"), map[string]string{"k": "w", "new": "x"}},
		"one-label":         {[]string{"labels.new"}, target(1, "note", "n"), map[string]string{"k": "v", "a.b/c": "1", "new": "x"}},
		"a-label-with-dots": {[]string{"labels.a.b/c"}, target(1, "note", "n"), map[string]string{"k": "v"}},
		"two-labels":        {[]string{"labels.k", "labels.new"}, target(1, "note", "n"), map[string]string{"k": "w", "a.b/c": "1", "new": "x"}},
		"target":            {[]string{"target"}, target(2, "note", "m"), both},
		"target-and-label":  {[]string{"target", "labels.k"}, target(2, "note", "m"), map[string]string{"k": "w", "a.b/c": "1"}},
		"annotations":       {[]string{"annotations"}, target(1, "note", "m"), both},
		"one-annotation":    {[]string{"annotations.note"}, target(1, "note", "m"), both},
	} {
		made, err := store.Create(s.ctx, images.Image{Name: name, Target: target(1, "note", "n"), Labels: both})
		s.must(err)
		updated, err := store.Update(s.ctx, images.Image{
			Name:   name,
			Target: target(2, "note", "m"),
			Labels: map[string]string{"k": "w", "new": "x"},
		}, test.mask...)
		if err != nil {
			s.Errorf("mask %s: %v", name, err)
			continue
		}
		s.equal(name+": target", updated.Target, test.target)
		s.equal(name+": labels", updated.Labels, test.labels)
		if !updated.CreatedAt.Equal(made.CreatedAt) || !updated.UpdatedAt.After(made.UpdatedAt) {
			s.Errorf("%s: times %v %v, before %v", name, updated.CreatedAt, updated.UpdatedAt, made.CreatedAt)
		}
		got, err := store.Get(s.bare, name)
		s.must(err)
		s.equal(name+": what Get finds", got, updated)
	}
}

func TestImageUpdateRefused(t *testing.T) {
	s := begin(t)
	store := s.client.ImageService()
	made, err := store.Create(s.ctx, images.Image{Name: "a", Target: target(1), Labels: map[string]string{"k": "v"}})
	s.must(err)
	change := images.Image{Name: "a", Target: target(2), Labels: map[string]string{"k": "w"}}
	for _, mask := range [][]string{
		{"name"}, {"created_at"}, {"target.digest"}, {"label.k"}, {"nonsense"}, {""},
		// One that is valid before one that is not: nothing of both.
		{"labels.k", "nonsense"},
	} {
		_, err := store.Update(s.ctx, change, mask...)
		s.fails("mask "+strings.Join(mask, ","), err, errdefs.ErrInvalidArgument)
	}
	change.Target.Digest = digest.Digest("nonsense")
	_, err = store.Update(s.ctx, change)
	s.fails("a target that is none", err, errdefs.ErrInvalidArgument)
	_, err = store.Update(s.ctx, change, "target")
	s.fails("a target that is none, by a mask", err, errdefs.ErrInvalidArgument)
	_, err = store.Update(s.ctx, images.Image{Name: "b", Target: target(2)})
	s.fails("a missing one", err, errdefs.ErrNotFound)
	_, err = store.Update(s.ctx, images.Image{Target: target(2)})
	s.fails("one without name", err, errdefs.ErrInvalidArgument)
	got, err := store.Get(s.bare, "a")
	s.must(err)
	s.equal("what is left", got, made)
}

func TestImageListFilters(t *testing.T) {
	s := begin(t)
	store := s.client.ImageService()
	for n, image := range []images.Image{
		{Name: "c:1", Labels: map[string]string{"color": "red", "a.b/c": "x"}},
		{Name: "a:1", Labels: map[string]string{"color": "blue"}},
		{Name: "b:2", Labels: map[string]string{"color": "red", "size": "big"}},
		{Name: "B:2"},
	} {
		image.Target = target(n, "note", image.Name)
		if n == 3 {
			image.Target.MediaType = ocispec.MediaTypeImageIndex
		}
		_, err := store.Create(s.ctx, image)
		s.must(err)
	}
	list := func(filters ...string) []string {
		found, err := store.List(s.bare, filters...)
		if err != nil {
			s.fails(strings.Join(filters, " "), err, errdefs.ErrInvalidArgument)
			return []string{"refused"}
		}
		names := []string{}
		for _, image := range found {
			names = append(names, image.Name)
		}
		return names
	}
	for _, test := range []struct{ filter, names string }{
		{"", "B:2 a:1 b:2 c:1"},
		{"name==a:1", "a:1"},
		{"name!=a:1", "B:2 b:2 c:1"},
		{"name~=^[ab]:", "a:1 b:2"},
		{`name~="^[ab]:"`, "a:1 b:2"},
		{"name~=/:2$/", "B:2 b:2"},
		{"name==missing", ""},
		{"target.digest==" + numbered(1).String(), "a:1"},
		{`target.mediatype=="` + ocispec.MediaTypeImageIndex + `"`, "B:2"},
		{"labels.color==red", "b:2 c:1"},
		{"labels.color", "a:1 b:2 c:1"},
		// What is absent differs from everything.
		{"labels.color!=red", "B:2 a:1"},
		{`labels."a.b/c"==x`, "c:1"},
		{"labels.color==red,labels.size==big", "b:2"},
		{"nonsense==1", ""},
		{`name~="["`, ""},
		{"labels.color==red labels.size==big", "refused"},
		{"name=a:1", "refused"},
		{"name==", "refused"},
		{"==a", "refused"},
		{"name==a:1,", "refused"},
	} {
		s.equal(test.filter, list(test.filter), words(test.names))
	}
	s.equal("no filter at all", list(), words("B:2 a:1 b:2 c:1"))
	s.equal("one or the other", list("name==a:1", "labels.size==big"), words("a:1 b:2"))
	s.equal("one, twice", list("name==a:1", "name==a:1"), words("a:1"))
	s.equal("one that is refused", list("name==a:1", "name="), words("refused"))
}

func TestImageDeleteWaits(t *testing.T) {
	s := begin(t)
	store := s.client.ImageService()
	s.image("a", s.blob("one"))
	s.image("b", s.blob("two"))
	s.image("c", s.blob("two"))
	s.drop(hold)
	s.equal("images hold their targets", s.left(), words("blob:one blob:two image:a image:b image:c"))
	s.must(store.Delete(s.bare, "a", images.SynchronousDelete()))
	s.equal("one less", s.left(), words("blob:two image:b image:c"))
	s.must(store.Delete(s.bare, "b", images.SynchronousDelete()))
	s.equal("the other holds it", s.left(), words("blob:two image:c"))
	s.fails("again", store.Delete(s.bare, "b"), errdefs.ErrNotFound)
	s.fails("again, and wait", store.Delete(s.bare, "b", images.SynchronousDelete()), errdefs.ErrNotFound)
	s.must(store.Delete(s.bare, "c", images.SynchronousDelete()))
	s.equal("nothing", s.left(), []string{})
}
