package client

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/namespaces"
	"github.com/opencontainers/go-digest"
)

func TestNamespaceLabels(t *testing.T) {
	s := begin(t)
	store := s.client.NamespaceService()
	// 1.6 tells of what is made in the namespace of who asks, and fails without one.
	ctx := s.bare
	name := s.ns + ".made"
	labels := func(of string) map[string]string {
		found, err := store.Labels(ctx, of)
		s.must(err)
		if found == nil {
			found = map[string]string{}
		}
		return found
	}
	s.equal("of one that is not there", labels(name), map[string]string{})
	s.must(store.Create(ctx, name, map[string]string{"k": "v", "a.b/c": "x"}))
	s.equal("made", labels(name), map[string]string{"k": "v", "a.b/c": "x"})
	s.fails("twice", store.Create(ctx, name, nil), errdefs.ErrAlreadyExists)
	s.must(store.SetLabel(ctx, name, "k", "w"))
	s.must(store.SetLabel(ctx, name, "new", "n"))
	s.must(store.SetLabel(ctx, name, "a.b/c", ""))
	s.equal("set", labels(name), map[string]string{"k": "w", "new": "n"})
	// To use one is to make it, and so is to label it.
	s.fails("one in use", store.Create(ctx, s.ns, nil), errdefs.ErrAlreadyExists)
	s.must(store.SetLabel(ctx, s.ns+".labelled", "k", "v"))
	s.equal("labelled", labels(s.ns+".labelled"), map[string]string{"k": "v"})
	long := strings.Repeat("v", 4096)
	err := store.Create(ctx, s.ns+".long", map[string]string{"k": long})
	s.fails("an overlong label", err, errdefs.ErrInvalidArgument)
	found, err := store.List(ctx)
	s.must(err)
	mine := []string{}
	for _, other := range found {
		if strings.HasPrefix(other, s.ns) && len(other) < len(s.ns)+12 {
			mine = append(mine, other)
		}
	}
	s.equal("listed, in order", mine, []string{s.ns, s.ns + ".labelled", s.ns + ".made"})
	s.must(store.Delete(ctx, name))
	s.equal("deleted", labels(name), map[string]string{})
	s.fails("delete again", store.Delete(ctx, name), errdefs.ErrNotFound)
}

func TestNamespaceNames(t *testing.T) {
	s := begin(t)
	store := s.client.NamespaceService()
	ctx := s.bare
	for _, name := range []string{
		"", "-", ".", "a-", "-a", "a..b", "a_-b", "a/b", "a b", "ä", strings.Repeat("a", 77),
	} {
		s.fails("create "+name, store.Create(ctx, name, nil), errdefs.ErrInvalidArgument)
		if name == "" {
			continue
		}
		_, err := s.client.ImageService().List(namespaces.WithNamespace(ctx, name))
		s.fails("list in "+name, err, errdefs.ErrInvalidArgument)
	}
	for _, name := range []string{"A", "0", "a-b_c.d", strings.Repeat("a", 76)} {
		s.must(store.Create(ctx, name, nil))
		s.must(store.Delete(ctx, name))
	}
	none := context.Background()
	_, err := s.client.ImageService().List(none)
	s.fails("none at all", err, errdefs.ErrFailedPrecondition)
	_, err = s.client.ImageService().Create(none, images.Image{Name: "a", Target: target(1)})
	s.fails("create in none at all", err, errdefs.ErrFailedPrecondition)
}

func TestNamespaceDeleteNotEmpty(t *testing.T) {
	s := begin(t)
	store := s.client.NamespaceService()
	for what, fill := range map[string]func(*scene) func(){
		"image": func(o *scene) func() {
			o.image("a", numbered(1))
			return func() { o.must(o.client.ImageService().Delete(o.bare, "a")) }
		},
		"content": func(o *scene) func() {
			dgst := o.blob("one")
			return func() { o.must(o.client.ContentStore().Delete(o.bare, dgst)) }
		},
		"snapshot": func(o *scene) func() {
			o.snapshot("a", "")
			return func() { o.must(o.client.SnapshotService(snapshotter).Remove(o.bare, "a")) }
		},
		// A lease and what was begun are in nobody's way.
		"nothing": func(o *scene) func() {
			o.ingest(o.ctx, "upload")
			return nil
		},
	} {
		o := s.other(what)
		empty := fill(o)
		if empty != nil {
			s.fails(what, store.Delete(o.bare, o.ns), errdefs.ErrFailedPrecondition)
			empty()
		}
		s.must(store.Delete(o.bare, o.ns))
		s.fails(what+", deleted", store.Delete(o.bare, o.ns), errdefs.ErrNotFound)
	}
}

func TestNamespacesAreApart(t *testing.T) {
	s := begin(t)
	o := s.other("b")
	s.image("i", s.blob("one"))
	s.snapshot("a", "")
	s.ingest(s.ctx, "upload")
	s.equal("here", s.left(), words("blob:one image:i ingest:upload lease:hold snapshot:a"))
	s.equal("there", o.left(), words("lease:hold"))
	o.image("i", numbered(2))
	o.snapshot("a", "", "k", "v")
	o.ingest(o.ctx, "upload")
	got, err := s.client.ImageService().Get(s.bare, "i")
	s.must(err)
	if got.Target.Digest == numbered(2) {
		s.Errorf("an image is another namespace's")
	}
	s.must(o.client.ImageService().Delete(o.bare, "i", images.SynchronousDelete()))
	o.drop(hold)
	s.equal("here, when all is gone there", s.left(), words("blob:one image:i ingest:upload lease:hold snapshot:a"))
	s.equal("there, when all is gone", o.left(), []string{})
}

// Namespaces share bytes, and nothing but bytes: who knows a digest need not send what it is of.
func TestNamespacesShareBytes(t *testing.T) {
	s := begin(t)
	o := s.other("b")
	data := []byte(s.ns + " one")
	desc := describe("text/plain", data)
	dgst := s.blob("one", "k", "v")
	store := s.client.ContentStore()
	_, err := store.Info(o.bare, dgst)
	s.fails("info there", err, errdefs.ErrNotFound)
	_, err = store.ReaderAt(o.bare, desc)
	s.fails("read there", err, errdefs.ErrNotFound)
	writer, err := store.Writer(o.ctx, content.WithRef("r"), content.WithDescriptor(desc))
	s.must(err)
	status, err := writer.Status()
	s.must(err)
	s.equal("what is there of it", []int64{status.Offset, status.Total}, []int64{desc.Size, desc.Size})
	s.must(writer.Commit(o.ctx, desc.Size, dgst, content.WithLabels(map[string]string{"l": "w"})))
	s.must(writer.Close())
	s.equal("labels here", s.labels(dgst), map[string]string{"k": "v"})
	s.equal("labels there", o.labels(dgst), map[string]string{"l": "w"})
	s.must(store.Delete(s.ctx, dgst))
	_, err = store.Info(s.bare, dgst)
	s.fails("deleted here", err, errdefs.ErrNotFound)
	s.drop(hold)
	s.equal("still there", string(o.read(dgst)), string(data))
	// With the last name the bytes go.
	o.drop(hold)
	o.lease(hold)
	writer, err = store.Writer(o.ctx, content.WithRef("r"), content.WithDescriptor(desc))
	s.must(err)
	defer writer.Close()
	status, err = writer.Status()
	s.must(err)
	s.equal("nothing is there of it", status.Offset, int64(0))
	_, err = io.Copy(writer, strings.NewReader(string(data)))
	s.must(err)
	s.must(writer.Commit(o.ctx, desc.Size, dgst))
}

// What a client finds by itself: the namespace that it was told when it was made, and the snapshotter
// that this asks for by a label.
func TestNamespaceOfAClient(t *testing.T) {
	s := begin(t)
	client, err := containerd.New(*address, containerd.WithDefaultNamespace(s.ns))
	s.must(err)
	defer client.Close()
	s.must(s.client.NamespaceService().SetLabel(s.bare, s.ns, "containerd.io/defaults/snapshotter", snapshotter))
	label, err := client.GetLabel(context.Background(), "containerd.io/defaults/snapshotter")
	s.must(err)
	s.equal("label", label, snapshotter)
	s.image("a", numbered(1))
	image, err := client.GetImage(context.Background(), "a")
	s.must(err)
	s.equal("image", image.Target().Digest, digest.Digest(numbered(1)))
	serving, err := client.IsServing(context.Background())
	s.must(err)
	s.equal("serving", serving, true)
	version, err := client.Version(context.Background())
	s.must(err)
	if version.Version == "" {
		s.Error("no version")
	}
	server, err := client.Server(context.Background())
	s.must(err)
	if len(server.UUID) != 36 {
		s.Errorf("no UUID: %q", server.UUID)
	}
}
