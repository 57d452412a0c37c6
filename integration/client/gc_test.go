package client

import (
	"testing"

	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/snapshots"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	root        = "containerd.io/gc.root"
	refContent  = "containerd.io/gc.ref.content"
	refSnapshot = "containerd.io/gc.ref.snapshot." + snapshotter
	refImage    = "containerd.io/gc.ref.image"
	brefContent = "containerd.io/gc.bref.content"
	brefImage   = "containerd.io/gc.bref.image"
	brefSnap    = "containerd.io/gc.bref.snapshot." + snapshotter
)

func TestCollectRoots(t *testing.T) {
	s := begin(t)
	s.blob("root", root, "any")
	s.blob("root-by-time", root, past)
	// An empty value is no label, whatever its key.
	s.blob("empty", root, "")
	s.blob("plain")
	s.snapshot("root", "", root, "any")
	s.snapshot("plain", "")
	s.ingest(s.ctx, "leased")
	s.image("i", s.blob("target"))
	s.lease("l")
	s.blobBy(s.under("l"), "leased")
	s.drop(hold)
	s.equal("what is left", s.left(), words("blob:leased blob:root blob:root-by-time blob:target "+
		"image:i lease:l snapshot:root"))
	// A root that is one no more.
	store := s.client.SnapshotService(snapshotter)
	_, err := store.Update(s.bare, snapshots.Info{Name: "root"}, "labels."+root)
	s.must(err)
	s.drop("l")
	s.equal("after that", s.left(), words("blob:root blob:root-by-time blob:target image:i"))
}

// Without a lease, what has been begun has a day.
func TestCollectIngests(t *testing.T) {
	s := begin(t)
	s.ingest(s.bare, "unleased")
	s.ingest(s.ctx, "leased")
	s.drop(hold)
	s.equal("what is left", s.left(), words("ingest:unleased"))
}

func TestCollectReferences(t *testing.T) {
	s := begin(t)
	blob := func(text string, labels ...string) string { return s.blob(text, labels...).String() }
	s.snapshot("base", "")
	s.snapshot("top", "base", refContent, blob("of-snapshot"))
	s.snapshot("alone", "")
	s.snapshot("parent", "")
	s.snapshot("rooted", "parent", root, "1", refSnapshot+"/other", "alone")
	blob("root", root, "1",
		refContent, blob("plain"),
		refContent+".0", blob("dot", refContent, blob("of-dot")),
		refContent+"/x", blob("slash"),
		// Only a dot or a stroke ends the name of the label.
		refContent+"s", blob("letter"),
		refContent+".missing", numbered(1).String(),
		refSnapshot, "top",
	)
	// Those that refer to each other only.
	first := s.blob("first")
	second := blob("second", refContent, first.String())
	info, err := s.client.ContentStore().Info(s.bare, first)
	s.must(err)
	info.Labels = map[string]string{refContent: second}
	_, err = s.client.ContentStore().Update(s.ctx, info, "labels")
	s.must(err)
	s.image("i", s.blob("target", refContent+".config", blob("config", refSnapshot, "base")),
		refContent, blob("of-image"))
	s.drop(hold)
	expected := "blob:config blob:dot blob:of-dot blob:of-image blob:of-snapshot blob:plain " +
		"blob:root blob:slash blob:target image:i " +
		"snapshot:alone snapshot:base snapshot:parent snapshot:rooted snapshot:top"
	s.equal("what is left", s.left(), words(expected))
	s.must(s.client.ContentStore().Delete(s.bare, describe("", []byte(s.ns+" root")).Digest))
	s.must(s.client.ImageService().Delete(s.bare, "i", images.SynchronousDelete()))
	s.equal("of one root less", s.left(), words("snapshot:alone snapshot:parent snapshot:rooted"))
}

// 1.6 knows neither references to images nor references back.
func TestCollectBackReferences(t *testing.T) {
	s := begin(t)
	blob := func(text string, labels ...string) string { return s.blob(text, labels...).String() }
	kept := blob("kept", root, "1", refImage, "referred")
	gone := blob("gone")
	s.snapshot("kept", "", root, "1")
	s.snapshot("gone", "")
	s.image("i", s.blob("target"))
	s.image("referred", s.blob("of-referred"), expire, past)
	back := blob("back", brefContent, kept)
	blob("back-of-back", brefContent+".0", back)
	blob("back-of-gone", brefContent, gone)
	blob("back-of-image", brefImage, "i")
	blob("back-of-snapshot", brefSnap+"/x", "kept")
	blob("back-of-no-snapshot", brefSnap, "gone")
	s.snapshot("back", "", brefContent+"/x", kept)
	s.drop(hold)
	s.equal("what is left", s.left(), s.olderWords(
		// Its images do not expire.
		"blob:kept blob:of-referred blob:target image:i image:referred snapshot:kept",
		"blob:back blob:back-of-back blob:back-of-image blob:back-of-snapshot blob:kept "+
			"blob:of-referred blob:target image:i image:referred snapshot:back snapshot:kept"))
}

// Conditions came after 2.0 as well.
func TestCollectConditions(t *testing.T) {
	s := begin(t)
	const usedAt = "containerd.io/gc.cond.value-usedat"
	s.snapshot("long-ago", "", usedAt, past)
	s.snapshot("lately", "", usedAt, future)
	s.snapshot("never", "")
	cond := "containerd.io/gc.cond.snapshot." + snapshotter
	s.image("i", s.blob("target"),
		cond+"/a", "usedat<24h|long-ago", cond+"/b", "usedat<24h|lately", cond+"/c", "usedat<24h|never")
	s.drop(hold)
	s.equal("what is left", s.left(), s.olderWords(
		"blob:target image:i",
		"blob:target image:i snapshot:lately"))
}

func TestCollectExpiredImages(t *testing.T) {
	s := begin(t)
	for _, image := range []struct{ name, at string }{
		{"past", past}, {"future", future}, {"nonsense", "tomorrow"},
	} {
		s.image(image.name, s.blob(image.name), expire, image.at)
	}
	s.lease("l")
	_, err := s.client.ImageService().Create(s.under("l"), images.Image{
		Name:   "leased",
		Target: ocispec.Descriptor{MediaType: "text/plain", Digest: s.blob("leased"), Size: 7},
		Labels: map[string]string{expire: past},
	})
	s.must(err)
	s.drop(hold)
	// 1.6 does not look at it.
	s.equal("what is left", s.left(), s.olderWords(
		"blob:future blob:leased blob:nonsense blob:past "+
			"image:future image:leased image:nonsense image:past lease:l",
		"blob:future blob:leased blob:nonsense "+
			"image:future image:leased image:nonsense lease:l"))
	s.drop("l")
	s.equal("after that", s.left(), s.olderWords(
		"blob:future blob:leased blob:nonsense blob:past "+
			"image:future image:leased image:nonsense image:past",
		"blob:future blob:nonsense image:future image:nonsense"))
}

// What is deleted is not gone from under who has it.
func TestCollectLeavesOtherNamespaces(t *testing.T) {
	s := begin(t)
	o := s.other("b")
	data := []byte("of both " + s.ns)
	desc := describe("text/plain", data)
	s.texts[desc.Digest] = "both"
	s.write(s.ctx, desc, data, root, "1")
	o.write(o.ctx, desc, data)
	o.snapshot("a", "")
	s.snapshot("a", "", root, "1", refContent, desc.Digest.String())
	o.drop(hold)
	s.equal("there", o.left(), []string{})
	s.equal("here", s.left(), words("blob:both lease:hold snapshot:a"))
	s.equal("bytes", string(s.read(desc.Digest)), string(data))
}

// Who was told that a blob's bytes are there already gets them, though the last namespace that has them
// lets them go before the client commits.
func TestCollectLeavesWhatIsBeingLinked(t *testing.T) {
	s := begin(t)
	o := s.other("b")
	data := []byte(s.ns + " one")
	desc := describe("text/plain", data)
	s.blob("one")
	writer, err := s.client.ContentStore().Writer(o.ctx, content.WithRef("r"), content.WithDescriptor(desc))
	s.must(err)
	defer writer.Close()
	status, err := writer.Status()
	s.must(err)
	s.equal("what is there of it", status.Offset, desc.Size)
	s.drop(hold)
	s.must(writer.Commit(o.ctx, desc.Size, desc.Digest))
	s.equal("there", o.left(), words("blob:one lease:hold"))
	s.equal("bytes", string(o.read(desc.Digest)), string(data))
	s.lease(hold)
	s.drop(hold)
	s.equal("here", s.left(), []string{})
	s.equal("bytes, still", string(o.read(desc.Digest)), string(data))
}
