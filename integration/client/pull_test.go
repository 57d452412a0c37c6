package client

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/platforms"
	"github.com/containerd/containerd/remotes"
	"github.com/containerd/containerd/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts)),
	})
}

// repository is a test's own, so that it is known who pushed what.
func (s *scene) repository() string { return strings.ToLower(s.ns) }

func (s *scene) reference(tag string) string { return *registry + "/" + s.repository() + ":" + tag }

// push has the client push an image from a namespace that nobody pulls into, which shares no bytes any
// more when it is gone.
func (s *scene) push(b *built, tag string) string {
	s.Helper()
	o := s.other("pushes-" + tag)
	o.put(b)
	ref := s.reference(tag)
	s.must(o.client.Push(o.ctx, ref, b.manifest, containerd.WithResolver(resolver()),
		containerd.WithPlatformMatcher(platforms.All)))
	o.drop(hold)
	s.equal("what is left of pushing", o.left(), []string{})
	return ref
}

func (s *scene) pull(ref string, opts ...containerd.RemoteOpt) (containerd.Image, error) {
	return s.client.Pull(s.ctx, ref, append(opts, containerd.WithResolver(resolver()))...)
}

func TestPullUnpack(t *testing.T) {
	s := begin(t)
	b := s.apart()
	ref := s.push(b, "one")
	image, err := s.pull(ref, containerd.WithPullUnpack, containerd.WithPullSnapshotter(snapshotter),
		containerd.WithPullLabel("k", "v"))
	s.must(err)
	s.equal("name", image.Name(), ref)
	s.equal("target", image.Target(), b.manifest)
	s.equal("labels", image.Labels(), map[string]string{"k": "v"})
	unpacked, err := image.IsUnpacked(s.bare, snapshotter)
	s.must(err)
	s.equal("unpacked", unpacked, true)
	s.equal("tree", s.tree(b.chain()), s.shown())
	// This client takes the port for no part of the name.
	source := "containerd.io/distribution.source." + strings.Split(*registry, ":")[0]
	s.equal("of the manifest", s.labels(b.manifest.Digest), map[string]string{
		"containerd.io/gc.ref.content.config": b.config.Digest.String(),
		"containerd.io/gc.ref.content.l.0":    b.layers[0].Digest.String(),
		"containerd.io/gc.ref.content.l.1":    b.layers[1].Digest.String(),
		"containerd.io/gc.ref.content.l.2":    b.layers[2].Digest.String(),
		source:                                s.repository(),
	})
	s.equal("of the configuration", s.labels(b.config.Digest), map[string]string{
		refSnapshot: b.chain(), source: s.repository(),
	})
	s.equal("of a layer", s.labels(b.layers[0].Digest), map[string]string{
		"containerd.io/uncompressed": b.diffIDs[0].String(), source: s.repository(),
	})
	for _, blob := range b.blobs {
		s.equal("bytes", s.read(blob.Digest), blob.data)
	}
	held := s.left()
	// All is there: twice is once.
	again, err := s.pull(ref, containerd.WithPullUnpack)
	s.must(err)
	s.equal("again", again.Target(), b.manifest)
	s.equal("what is left of that", s.left(), held)
	s.drop(hold)
	s.equal("blobs, snapshots and the image", len(s.left()), len(b.blobs)+len(b.layers)+1)
	s.must(s.client.ImageService().Delete(s.bare, ref, images.SynchronousDelete()))
	s.equal("at last", s.left(), []string{})
}

// What one namespace has another need not fetch, though it sees nothing of it before.
func TestPullIntoTwoNamespaces(t *testing.T) {
	s := begin(t)
	o := s.other("b")
	b := s.apart()
	ref := s.push(b, "one")
	_, err := s.pull(ref, containerd.WithPullUnpack)
	s.must(err)
	s.equal("there", o.left(), words("lease:hold"))
	_, err = o.pull(ref, containerd.WithPullUnpack)
	s.must(err)
	s.equal("tree here", s.tree(b.chain()), s.shown())
	s.equal("tree there", o.tree(b.chain()), s.shown())
	s.must(s.client.ImageService().Delete(s.bare, ref))
	s.drop(hold)
	s.equal("here", s.left(), []string{})
	s.equal("tree there, when it is gone here", o.tree(b.chain()), s.shown())
}

// A client may let go of the layers' blobs as soon as they are unpacked.
func TestPullDiscardsLayers(t *testing.T) {
	s := begin(t)
	b := s.apart()
	ref := s.push(b, "one")
	image, err := s.pull(ref, containerd.WithPullUnpack,
		containerd.WithChildLabelMap(images.ChildGCLabelsFilterLayers))
	s.must(err)
	s.drop(hold)
	s.equal("manifest, configuration, snapshots, image", len(s.left()), 2+len(b.layers)+1)
	_, err = s.client.ContentStore().Info(s.bare, b.layers[0].Digest)
	s.fails("a layer's blob", err, errdefs.ErrNotFound)
	unpacked, err := image.IsUnpacked(s.bare, snapshotter)
	s.must(err)
	s.equal("unpacked", unpacked, true)
	s.lease(hold)
	s.equal("tree", s.tree(b.chain()), s.shown())
}

func TestPullOnePlatformOfSeveral(t *testing.T) {
	s := begin(t)
	mine, theirs := s.apart(), build("s390x", layer(entry{"other", s.ns}))
	index := several(map[string]*built{runtime.GOARCH: mine, "s390x": theirs})
	ref := s.push(index, "all")
	image, err := s.pull(ref, containerd.WithPullUnpack)
	s.must(err)
	s.equal("target", image.Target().Digest, index.manifest.Digest)
	s.equal("tree", s.tree(mine.chain()), s.shown())
	_, err = s.client.ContentStore().Info(s.bare, theirs.config.Digest)
	s.fails("of another platform", err, errdefs.ErrNotFound)
	o := s.other("other")
	_, err = o.pull(ref, containerd.WithPlatform("linux/s390x"))
	s.must(err)
	_, err = o.client.ContentStore().Info(o.bare, mine.config.Digest)
	s.fails("of this platform", err, errdefs.ErrNotFound)
	_, err = o.pull(ref, containerd.WithPlatform("linux/riscv64"))
	s.fails("of no platform", err, errdefs.ErrNotFound)
	all := s.other("every")
	_, err = all.client.Fetch(all.ctx, ref, containerd.WithResolver(resolver()))
	s.must(err)
	s.equal("all blobs, the image and the lease", len(all.left()), len(index.blobs)+2)
}

func TestPullOfWhatIsNotThere(t *testing.T) {
	s := begin(t)
	b := s.apart()
	s.push(b, "one")
	_, err := s.pull(s.reference("none"), containerd.WithPullUnpack)
	s.fails("no such tag", err, errdefs.ErrNotFound)
	s.equal("what is left", s.left(), words("lease:hold"))
}

// A layer that another upload is in the middle of is waited for.
func TestPullResumesAnUpload(t *testing.T) {
	s := begin(t)
	b := s.apart()
	ref := s.push(b, "one")
	desc := b.layers[0]
	writer, err := s.client.ContentStore().Writer(s.ctx,
		content.WithRef(remotes.MakeRefKey(s.ctx, desc)), content.WithDescriptor(desc))
	s.must(err)
	_, err = writer.Write(b.blobs[0].data[:20])
	s.must(err)
	s.must(writer.Close())
	_, err = s.pull(ref, containerd.WithPullUnpack)
	s.must(err)
	s.equal("tree", s.tree(b.chain()), s.shown())
	uploads, err := s.client.ContentStore().ListStatuses(s.bare)
	s.must(err)
	s.equal("uploads", len(uploads), 0)
}

// What is pushed comes from the store, blob by blob.
func TestPushAnIndex(t *testing.T) {
	s := begin(t)
	index := several(map[string]*built{runtime.GOARCH: s.apart(), "s390x": build("s390x", layer(entry{"x", s.ns}))})
	ref := s.push(index, "all")
	name, desc, err := resolver().Resolve(context.Background(), ref)
	s.must(err)
	s.equal("name", name, ref)
	s.equal("descriptor", desc, ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageIndex,
		Digest:    index.manifest.Digest,
		Size:      index.manifest.Size,
	})
}
