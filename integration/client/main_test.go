// Tests by containerd's own Go client, of whatever daemon listens at the address.
//
// They are run against containerd before they are run against cairnd: that is what proves them. What
// Debian's containerd (1.6) does otherwise than the containerd that cairnd is like (2.3) is written
// where it is seen, by what `old` or `older` says, and both answers are expected to the letter.
//
// Built outside of modules, from what Debian packages of containerd 1.6.
package client

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	address  = flag.String("address", "", "socket of the daemon")
	old      = flag.Bool("old", false, "the daemon is containerd 1.6")
	registry = flag.String("registry", "", "host and port of an empty registry that speaks plain HTTP")
)

// What both daemons call their snapshotter.
const snapshotter = "overlayfs"

// The lease that scene.ctx names.
const hold = "hold"

// scene is a namespace of a test's own, and in it a lease under which all is made that the test makes
// by ctx, so that no collection takes it before its time.
type scene struct {
	*testing.T
	client *containerd.Client
	ns     string
	ctx    context.Context
	// Without the lease.
	bare context.Context
	// What blobs are called by left.
	texts map[digest.Digest]string
}

func begin(t *testing.T) *scene {
	t.Parallel()
	client, err := containerd.New(*address)
	if err != nil {
		t.Fatalf("connect to %s: %v", *address, err)
	}
	t.Cleanup(func() { client.Close() })
	ns := strings.ReplaceAll(t.Name(), "/", "-")
	s := &scene{T: t, client: client, ns: ns, texts: map[digest.Digest]string{}}
	s.bare = namespaces.WithNamespace(context.Background(), ns)
	s.lease(hold)
	s.ctx = leases.WithLease(s.bare, hold)
	return s
}

// other is a client's view of another namespace, with a lease of its own there.
func (s *scene) other(name string) *scene {
	o := &scene{T: s.T, client: s.client, ns: s.ns + "-" + name, texts: s.texts}
	o.bare = namespaces.WithNamespace(context.Background(), o.ns)
	o.lease(hold)
	o.ctx = leases.WithLease(o.bare, hold)
	return o
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// equal compares what came with what was expected.
func (s *scene) equal(what string, got, want interface{}) {
	s.Helper()
	if !reflect.DeepEqual(got, want) {
		s.Errorf("%s:\n   got %#v\nwanted %#v", what, got, want)
	}
}

// fails expects an error of a class.
func (s *scene) fails(what string, err error, class error) {
	s.Helper()
	if found := classOf(err); found != class {
		s.Errorf("%s:\n   got %v, class %v\nwanted %v", what, err, found, class)
	}
}

// classOf is the class of errdefs that an error is of; nil is that of no error.
func classOf(err error) error {
	if err == nil {
		return nil
	}
	classes := map[error]func(error) bool{
		errdefs.ErrInvalidArgument:    errdefs.IsInvalidArgument,
		errdefs.ErrNotFound:           errdefs.IsNotFound,
		errdefs.ErrAlreadyExists:      errdefs.IsAlreadyExists,
		errdefs.ErrFailedPrecondition: errdefs.IsFailedPrecondition,
		errdefs.ErrUnavailable:        errdefs.IsUnavailable,
		errdefs.ErrNotImplemented:     errdefs.IsNotImplemented,
	}
	for class, is := range classes {
		if is(err) {
			return class
		}
	}
	return errdefs.ErrUnknown
}

// older picks what is expected: of containerd 1.6 the first, of 2.3 and cairnd the second.
func (s *scene) older(was, is error) error {
	if *old {
		return was
	}
	return is
}

func (s *scene) olderWords(was, is string) []string {
	if *old {
		return words(was)
	}
	return words(is)
}

// words is a list written in one line; names in it have no blanks.
func words(line string) []string { return append([]string{}, strings.Fields(line)...) }

// lease makes one by that name.
func (s *scene) lease(id string, opts ...leases.Opt) leases.Lease {
	s.Helper()
	made, err := s.client.LeasesService().Create(s.bare, append(opts, leases.WithID(id))...)
	s.must(err)
	return made
}

// drop deletes a lease and waits for the collection after that.
func (s *scene) drop(id string) {
	s.Helper()
	s.must(s.client.LeasesService().Delete(s.bare, leases.Lease{ID: id}, leases.SynchronousDelete))
}

// under is a context that names another lease than hold.
func (s *scene) under(id string) context.Context { return leases.WithLease(s.bare, id) }

// blob writes a text and calls its blob by it; labels are pairs of key and value.
func (s *scene) blob(text string, labels ...string) digest.Digest {
	s.Helper()
	return s.blobBy(s.ctx, text, labels...)
}

func (s *scene) blobBy(ctx context.Context, text string, labels ...string) digest.Digest {
	s.Helper()
	// Apart from other tests, since namespaces share bytes.
	desc := describe("text/plain", []byte(s.ns+" "+text))
	s.write(ctx, desc, []byte(s.ns+" "+text), labels...)
	s.texts[desc.Digest] = text
	return desc.Digest
}

// write puts bytes into the store under what describes them.
func (s *scene) write(ctx context.Context, desc ocispec.Descriptor, data []byte, labels ...string) {
	s.Helper()
	opts := []content.Opt{}
	if len(labels) > 0 {
		opts = append(opts, content.WithLabels(pairs(labels)))
	}
	ref := "write-" + desc.Digest.String()
	s.must(content.WriteBlob(ctx, s.client.ContentStore(), ref, bytes.NewReader(data), desc, opts...))
}

func (s *scene) read(dgst digest.Digest) []byte {
	s.Helper()
	desc := ocispec.Descriptor{Digest: dgst}
	data, err := content.ReadBlob(s.bare, s.client.ContentStore(), desc)
	s.must(err)
	return data
}

// labels are those of a blob.
func (s *scene) labels(dgst digest.Digest) map[string]string {
	s.Helper()
	info, err := s.client.ContentStore().Info(s.bare, dgst)
	s.must(err)
	return info.Labels
}

// image records an image that has a blob for its target.
func (s *scene) image(name string, target digest.Digest, labels ...string) images.Image {
	s.Helper()
	made, err := s.client.ImageService().Create(s.ctx, images.Image{
		Name:   name,
		Target: ocispec.Descriptor{MediaType: "text/plain", Digest: target, Size: 7},
		Labels: pairs(labels),
	})
	s.must(err)
	return made
}

// snapshot commits an empty layer on a parent.
func (s *scene) snapshot(name, parent string, labels ...string) {
	s.Helper()
	s.snapshotBy(s.ctx, name, parent, labels...)
}

func (s *scene) snapshotBy(ctx context.Context, name, parent string, labels ...string) {
	s.Helper()
	store := s.client.SnapshotService(snapshotter)
	_, err := store.Prepare(ctx, name+"-key", parent)
	s.must(err)
	s.must(store.Commit(ctx, name, name+"-key", snapshots.WithLabels(pairs(labels))))
}

// ingest begins an upload and leaves it there.
func (s *scene) ingest(ctx context.Context, ref string) {
	s.Helper()
	writer, err := s.client.ContentStore().Writer(ctx, content.WithRef(ref))
	s.must(err)
	_, err = writer.Write([]byte("begun"))
	s.must(err)
	s.must(writer.Close())
}

// left lists what there is in the namespace: blobs by their texts, snapshots, images, uploads, leases.
func (s *scene) left() []string {
	s.Helper()
	left := []string{}
	add := func(kind string, name string) { left = append(left, kind+":"+name) }
	store := s.client.ContentStore()
	s.must(store.Walk(s.bare, func(info content.Info) error {
		add("blob", s.texts[info.Digest])
		return nil
	}))
	uploads, err := store.ListStatuses(s.bare)
	s.must(err)
	for _, upload := range uploads {
		add("ingest", upload.Ref)
	}
	snaps := s.client.SnapshotService(snapshotter)
	s.must(snaps.Walk(s.bare, func(_ context.Context, info snapshots.Info) error {
		add("snapshot", info.Name)
		return nil
	}))
	records, err := s.client.ImageService().List(s.bare)
	s.must(err)
	for _, record := range records {
		add("image", record.Name)
	}
	held, err := s.client.LeasesService().List(s.bare)
	s.must(err)
	for _, lease := range held {
		add("lease", lease.ID)
	}
	sort.Strings(left)
	return left
}

// pairs makes labels of keys and values.
func pairs(labels []string) map[string]string {
	made := map[string]string{}
	for i := 0; i+1 < len(labels); i += 2 {
		made[labels[i]] = labels[i+1]
	}
	return made
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: mediaType,
		Digest:    digest.FromBytes(data),
		Size:      int64(len(data)),
	}
}

// numbered are digests of nothing that exists.
func numbered(n int) digest.Digest { return digest.FromString(fmt.Sprintf("nothing %d", n)) }
