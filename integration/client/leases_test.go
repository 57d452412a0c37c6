package client

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/snapshots"
)

const (
	expire = "containerd.io/gc.expire"
	flat   = "containerd.io/gc.flat"
	past   = "2001-01-01T00:00:00Z"
	future = "2101-01-01T00:00:00Z"
)

func TestLeaseRecords(t *testing.T) {
	s := begin(t)
	manager := s.client.LeasesService()
	before := time.Now()
	made := s.lease("a b/c", leases.WithLabels(map[string]string{"k": "v"}))
	s.equal("id", made.ID, "a b/c")
	s.equal("labels", made.Labels, map[string]string{"k": "v"})
	if made.CreatedAt.Before(before.Add(-time.Second)) || made.CreatedAt.After(time.Now().Add(time.Second)) {
		s.Errorf("made at %v, asked for at %v", made.CreatedAt, before)
	}
	_, err := manager.Create(s.bare, leases.WithID("a b/c"))
	s.fails("twice", err, errdefs.ErrAlreadyExists)
	random, err := manager.Create(s.bare, leases.WithRandomID())
	s.must(err)
	// The daemon finds a name for one without.
	named, err := manager.Create(s.bare)
	s.must(err)
	if parts := strings.Split(named.ID, "-"); len(parts) < 2 || named.ID == random.ID {
		s.Errorf("no name for a lease: %q", named.ID)
	}
	for _, lease := range []leases.Lease{random, named} {
		s.must(manager.Delete(s.bare, lease))
	}
	s.lease("b", leases.WithExpiration(time.Hour), leases.WithLabels(map[string]string{"k": "w"}))
	list := func(filters ...string) []string {
		found, err := manager.List(s.bare, filters...)
		if err != nil {
			s.fails("list", err, errdefs.ErrInvalidArgument)
			return []string{"refused"}
		}
		ids := []string{}
		for _, lease := range found {
			ids = append(ids, strings.ReplaceAll(lease.ID, " ", "_"))
		}
		return ids
	}
	s.equal("all", list(), words("a_b/c b hold"))
	s.equal("by a label", list("labels.k==v"), words("a_b/c"))
	s.equal("by presence", list("labels.k"), words("a_b/c b"))
	s.equal("by expiry", list(`labels."containerd.io/gc.expire"`), words("b"))
	s.equal("by id or label", list("id==hold", "labels.k==w"), words("b hold"))
	s.equal("by nonsense", list("id=="), words("refused"))
	s.must(manager.Delete(s.bare, leases.Lease{ID: "b"}))
	s.fails("delete again", manager.Delete(s.bare, leases.Lease{ID: "b"}), errdefs.ErrNotFound)
	err = manager.Delete(s.bare, leases.Lease{ID: "b"}, leases.SynchronousDelete)
	s.fails("delete again, and wait", err, errdefs.ErrNotFound)
	s.equal("one less", list(), words("a_b/c hold"))
}

// resources are those of a lease, as "type:id".
func (s *scene) resources(id string) []string {
	s.Helper()
	listed, err := s.client.LeasesService().ListResources(s.bare, leases.Lease{ID: id})
	s.must(err)
	found := []string{}
	for _, r := range listed {
		name := r.ID
		for dgst, text := range s.texts {
			name = strings.ReplaceAll(name, dgst.String(), text)
		}
		found = append(found, r.Type+":"+name)
	}
	return found
}

func TestLeaseResources(t *testing.T) {
	s := begin(t)
	manager := s.client.LeasesService()
	lease := s.lease("l")
	one := s.blob("one")
	for _, r := range []leases.Resource{
		{Type: "snapshots/" + snapshotter, ID: "b"},
		{Type: "snapshots/" + snapshotter, ID: "a b"},
		{Type: "snapshots/native", ID: "n"},
		{Type: "ingests", ID: "i"},
		{Type: "content", ID: one.String()},
		// Twice is once.
		{Type: "ingests", ID: "i"},
	} {
		s.must(manager.AddResource(s.bare, lease, r))
	}
	// Images came with 2.0.
	err := manager.AddResource(s.bare, lease, leases.Resource{Type: "images", ID: "i"})
	s.fails("an image", err, s.older(errdefs.ErrNotImplemented, nil))
	s.equal("all, in order", s.resources("l"), map[bool][]string{
		true: {
			"content:one", "ingests:i",
			"snapshots/native:n", "snapshots/overlayfs:a b", "snapshots/overlayfs:b",
		},
		false: {
			"content:one", "images:i", "ingests:i",
			"snapshots/native:n", "snapshots/overlayfs:a b", "snapshots/overlayfs:b",
		},
	}[*old])
	for kind, class := range map[string]error{
		"content/x": errdefs.ErrInvalidArgument,
		"snapshots": errdefs.ErrInvalidArgument,
		"nonsense":  errdefs.ErrNotImplemented,
		"":          errdefs.ErrNotImplemented,
	} {
		r := leases.Resource{Type: kind, ID: one.String()}
		s.fails("add "+kind, manager.AddResource(s.bare, lease, r), class)
		s.fails("delete "+kind, manager.DeleteResource(s.bare, lease, r), class)
	}
	r := leases.Resource{Type: "content", ID: "no digest"}
	s.fails("no digest", manager.AddResource(s.bare, lease, r), errdefs.ErrInvalidArgument)
	r.ID = one.String()
	none := leases.Lease{ID: "none"}
	s.fails("add to no lease", manager.AddResource(s.bare, none, r), errdefs.ErrNotFound)
	s.fails("delete from no lease", manager.DeleteResource(s.bare, none, r), errdefs.ErrNotFound)
	_, err = manager.ListResources(s.bare, none)
	s.fails("list of no lease", err, errdefs.ErrNotFound)
	for _, r := range []leases.Resource{
		{Type: "content", ID: one.String()},
		{Type: "content", ID: one.String()},
		{Type: "ingests", ID: "i"},
		{Type: "ingests", ID: "never"},
		{Type: "snapshots/native", ID: "n"},
		{Type: "snapshots/" + snapshotter, ID: "b"},
	} {
		s.must(manager.DeleteResource(s.bare, lease, r))
	}
	s.equal("what is left", s.resources("l"), map[bool][]string{
		true:  {"snapshots/overlayfs:a b"},
		false: {"images:i", "snapshots/overlayfs:a b"},
	}[*old])
}

// A lease that lists things by its resources keeps them when the one goes under which they were made.
func TestLeaseHoldsResources(t *testing.T) {
	s := begin(t)
	manager := s.client.LeasesService()
	keep := s.lease("keep")
	s.ingest(s.ctx, "upload")
	s.ingest(s.ctx, "upload-too")
	s.snapshot("base", "")
	s.snapshot("child", "base")
	s.snapshot("other", "base")
	_, err := s.client.SnapshotService(snapshotter).Prepare(s.ctx, "active", "other")
	s.must(err)
	_, err = s.client.SnapshotService(snapshotter).View(s.ctx, "view", "other")
	s.must(err)
	for _, r := range []leases.Resource{
		{Type: "content", ID: s.blob("one").String()},
		{Type: "content", ID: s.blob("two", "containerd.io/gc.ref.content", s.blob("three").String()).String()},
		{Type: "ingests", ID: "upload"},
		{Type: "snapshots/" + snapshotter, ID: "child"},
		{Type: "snapshots/" + snapshotter, ID: "view"},
	} {
		s.must(manager.AddResource(s.bare, keep, r))
	}
	s.blob("four")
	s.image("i", s.blob("five"))
	s.drop(hold)
	s.equal("what is kept", s.left(), words("blob:five blob:one blob:three blob:two image:i "+
		"ingest:upload lease:keep snapshot:base snapshot:child snapshot:other snapshot:view"))
	s.drop("keep")
	s.equal("what holds itself", s.left(), words("blob:five image:i"))
}

func TestLeaseTakesWhatIsMadeUnderIt(t *testing.T) {
	s := begin(t)
	store := s.client.ContentStore()
	snaps := s.client.SnapshotService(snapshotter)
	one := s.blob("one")
	s.lease("für l")
	ctx := s.under("für l")
	s.blobBy(ctx, "two")
	s.ingest(ctx, "upload")
	_, err := snaps.Prepare(ctx, "active", "")
	s.must(err)
	_, err = snaps.View(ctx, "view", "")
	s.must(err)
	s.snapshotBy(ctx, "done", "")
	expected := words("content:two ingests:upload " +
		"snapshots/overlayfs:active snapshots/overlayfs:done snapshots/overlayfs:view")
	s.equal("made", s.resources("für l"), expected)
	// What is there already is taken too.
	_, err = store.Writer(ctx, content.WithRef("again"), content.WithDescriptor(describe("", []byte(s.ns+" one"))))
	s.fails("a blob that is there", err, errdefs.ErrAlreadyExists)
	expected = append(words("content:one"), expected...)
	byDigest := func() []string {
		// They are listed by their digests.
		listed := s.resources("für l")
		if len(listed) > 1 && listed[0] == "content:two" {
			listed[0], listed[1] = listed[1], listed[0]
		}
		return listed
	}
	s.equal("with one that was there", byDigest(), expected)
	// What is removed under it, it lets go.
	s.must(store.Delete(ctx, one))
	s.must(store.Abort(ctx, "upload"))
	s.must(snaps.Remove(ctx, "view"))
	s.must(snaps.Commit(ctx, "committed", "active"))
	s.equal("removed", s.resources("für l"), words("content:two snapshots/overlayfs:committed snapshots/overlayfs:done"))
	// By reading nothing is taken, and nothing is read wrong for want of a lease.
	if _, err := snaps.Stat(s.under("none"), "done"); err != nil {
		s.Errorf("read under no lease: %v", err)
	}
	_, err = snaps.Prepare(s.under("none"), "k", "")
	s.fails("made under no lease", err, errdefs.ErrNotFound)
	_, err = store.Writer(s.under("none"), content.WithRef("r"))
	s.fails("begun under no lease", err, errdefs.ErrNotFound)
	_, err = snaps.Stat(s.bare, "k")
	s.fails("what was made under no lease", err, errdefs.ErrNotFound)
}

func TestLeaseTakesSnapshotsThatAreThere(t *testing.T) {
	s := begin(t)
	snaps := s.client.SnapshotService(snapshotter)
	s.snapshot("base", "")
	s.lease("l")
	ctx := s.under("l")
	_, err := snaps.Prepare(s.ctx, "k", "")
	s.must(err)
	_, err = snaps.Prepare(ctx, "k", "")
	s.fails("prepare", err, errdefs.ErrAlreadyExists)
	_, err = snaps.View(ctx, "base", "")
	s.fails("view", err, errdefs.ErrAlreadyExists)
	_, err = snaps.Prepare(ctx, "new", "", snapshots.WithLabels(map[string]string{
		"containerd.io/snapshot.ref": "base",
	}))
	s.fails("a target that is there", err, errdefs.ErrAlreadyExists)
	// 1.6 answers before it looks at the lease.
	s.equal("taken", s.resources("l"),
		s.olderWords("", "snapshots/overlayfs:base snapshots/overlayfs:k"))
}

func TestLeaseExpires(t *testing.T) {
	s := begin(t)
	manager := s.client.LeasesService()
	// held makes one of each kind, and has a lease hold them.
	held := func(lease leases.Lease, name string) error {
		for _, r := range []leases.Resource{
			{Type: "content", ID: describe("", []byte(s.ns+" "+name)).Digest.String()},
			{Type: "ingests", ID: "upload-" + name},
			{Type: "snapshots/" + snapshotter, ID: "snapshot-" + name},
		} {
			if err := manager.AddResource(s.bare, lease, r); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range []string{"soon", "future", "nonsense"} {
		s.blob(name)
		s.ingest(s.ctx, "upload-"+name)
		s.snapshot("snapshot-"+name, "")
	}
	labelled := func(name, at string) leases.Lease {
		return s.lease(name, leases.WithLabels(map[string]string{expire: at}))
	}
	s.must(held(labelled("future", future), "future"))
	s.must(held(labelled("nonsense", "tomorrow"), "nonsense"))
	// One that has expired may be gone before it is used, since other tests have garbage collected.
	for wait := 2 * time.Second; ; wait *= 2 {
		at := time.Now().Add(wait)
		err := held(labelled("soon", at.Format(time.RFC3339Nano)), "soon")
		if err == nil {
			time.Sleep(time.Until(at))
			break
		}
		s.fails("a lease that expired too soon", err, errdefs.ErrNotFound)
	}
	s.drop(hold)
	s.equal("what is left", s.left(), words("blob:future blob:nonsense "+
		"ingest:upload-future ingest:upload-nonsense lease:future lease:nonsense "+
		"snapshot:snapshot-future snapshot:snapshot-nonsense"))
}

// A flat lease holds what it lists and not what that refers to, but for parents of snapshots and
// targets of images.
func TestLeaseFlat(t *testing.T) {
	s := begin(t)
	manager := s.client.LeasesService()
	refer := func(text string) []string {
		return []string{"containerd.io/gc.ref.content.0", s.blob(text).String()}
	}
	s.snapshot("base", "", refer("of-base")...)
	s.snapshot("child", "base", refer("of-child")...)
	s.snapshot("plain", "", refer("of-plain")...)
	apart := s.lease("flat", leases.WithLabels(map[string]string{flat: "any"}))
	deep := s.lease("deep")
	for _, held := range []struct {
		leases.Lease
		leases.Resource
	}{
		{apart, leases.Resource{Type: "content", ID: s.blob("flat", refer("below-flat")...).String()}},
		{apart, leases.Resource{Type: "snapshots/" + snapshotter, ID: "child"}},
		{deep, leases.Resource{Type: "content", ID: s.blob("deep", refer("below-deep")...).String()}},
		{deep, leases.Resource{Type: "snapshots/" + snapshotter, ID: "plain"}},
	} {
		s.must(manager.AddResource(s.bare, held.Lease, held.Resource))
	}
	s.drop(hold)
	s.equal("what is left", s.left(), words("blob:below-deep blob:deep blob:flat blob:of-plain "+
		"lease:deep lease:flat snapshot:base snapshot:child snapshot:plain"))
}
