package client

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/diff"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/rootfs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// change has a snapshot on a parent, into which change writes.
func (s *scene) change(name, parent string, change func(root string) error) {
	s.Helper()
	snaps := s.client.SnapshotService(snapshotter)
	mounts, err := snaps.Prepare(s.ctx, name+"-key", parent)
	s.must(err)
	s.must(mount.WithTempMount(s.bare, mounts, change))
	s.must(snaps.Commit(s.ctx, name, name+"-key"))
}

// steps does one after the other, until one fails.
func steps(steps ...error) error {
	for _, err := range steps {
		if err != nil {
			return err
		}
	}
	return nil
}

func put(root, name, text string) error {
	path := filepath.Join(root, name)
	at := time.Unix(1600000000, 0)
	return steps(os.WriteFile(path, []byte(text), 0o640), os.Chtimes(path, at, at))
}

// twoLayers are "base" and what was changed on it, "top".
func (s *scene) twoLayers() {
	s.Helper()
	s.change("base", "", func(root string) error {
		return steps(
			os.Mkdir(filepath.Join(root, "d"), 0o755), put(root, "d/one", "1"), put(root, "d/two", "2"),
			os.Mkdir(filepath.Join(root, "gone"), 0o755), put(root, "gone/x", "x"),
			put(root, "same", s.ns), os.Symlink("d/one", filepath.Join(root, "link")),
		)
	})
	s.change("top", "base", func(root string) error {
		return steps(
			os.Remove(filepath.Join(root, "d/one")), put(root, "d/two", "two"), put(root, "new", "n"),
			os.RemoveAll(filepath.Join(root, "gone")), os.Chmod(filepath.Join(root, "d"), 0o711),
			os.Link(filepath.Join(root, "new"), filepath.Join(root, "new-too")),
		)
	})
}

// compare has the daemon write what a snapshot changes of another; "" is nothing at all.
func (s *scene) compare(lower, upper string, opts ...diff.Opt) (ocispec.Descriptor, error) {
	s.Helper()
	snaps := s.client.SnapshotService(snapshotter)
	view := func(key, name string) []mount.Mount {
		mounts, err := snaps.View(s.ctx, key, name)
		s.must(err)
		return mounts
	}
	below := []mount.Mount{}
	if lower != "" {
		below = view("lower", lower)
	}
	desc, err := s.client.DiffService().Compare(s.ctx, below, view("upper", upper), opts...)
	s.must(snaps.Remove(s.ctx, "upper"))
	if lower != "" {
		s.must(snaps.Remove(s.ctx, "lower"))
	}
	return desc, err
}

// entries lists a tar: what whiteouts say of time and mode differs between versions and is left out.
func (s *scene) entries(packed io.Reader) []string {
	s.Helper()
	lines := []string{}
	for reader := tar.NewReader(packed); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return lines
		}
		s.must(err)
		text, err := io.ReadAll(reader)
		s.must(err)
		line := fmt.Sprintf("%c %s", header.Typeflag, header.Name)
		if filepath.Base(header.Name)[:1] != "." {
			line += fmt.Sprintf(" %o %s%s", header.Mode, header.Linkname, text)
		}
		lines = append(lines, line)
	}
}

func TestDiffCompare(t *testing.T) {
	s := begin(t)
	s.twoLayers()
	expected := []string{
		"5 d/ 711 ", "0 d/.wh.one", "0 d/two 640 two", "0 .wh.gone", "0 new 640 n", "1 new-too 640 new",
	}
	desc, err := s.compare("base", "top", diff.WithMediaType(ocispec.MediaTypeImageLayer),
		diff.WithLabels(map[string]string{"k": "v"}), diff.WithReference("a-ref"))
	s.must(err)
	data := s.read(desc.Digest)
	s.equal("descriptor", desc, describe(ocispec.MediaTypeImageLayer, data))
	s.equal("entries", s.entries(bytes.NewReader(data)), expected)
	s.equal("labels", s.labels(desc.Digest), map[string]string{"k": "v"})
	// Its type is that when none is asked for.
	desc, err = s.compare("base", "top")
	s.must(err)
	packed := s.read(desc.Digest)
	s.equal("descriptor", desc, describe(ocispec.MediaTypeImageLayerGzip, packed))
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	s.must(err)
	plain, err := io.ReadAll(unpacked)
	s.must(err)
	s.equal("entries", s.entries(bytes.NewReader(plain)), expected)
	s.equal("labels", s.labels(desc.Digest), map[string]string{
		"containerd.io/uncompressed": digest.FromBytes(plain).String(),
	})
	desc, err = s.compare("", "base", diff.WithMediaType(ocispec.MediaTypeImageLayer))
	s.must(err)
	s.equal("of nothing", s.entries(bytes.NewReader(s.read(desc.Digest))), []string{
		"5 d/ 755 ", "0 d/one 640 1", "0 d/two 640 2", "5 gone/ 755 ", "0 gone/x 640 x",
		"2 link 777 d/one", "0 same 640 " + s.ns,
	})
	desc, err = s.compare("base", "base", diff.WithMediaType(ocispec.MediaTypeImageLayer))
	s.must(err)
	s.equal("of the same", s.entries(bytes.NewReader(s.read(desc.Digest))), []string{})
	// 1.6 writes no zstd.
	_, err = s.compare("base", "top", diff.WithMediaType(ocispec.MediaTypeImageLayerZstd))
	s.fails("zstd", err, s.older(errdefs.ErrNotImplemented, nil))
	_, err = s.compare("base", "top", diff.WithMediaType("text/plain"))
	s.fails("another type", err, errdefs.ErrNotImplemented)
	uploads, err := s.client.ContentStore().ListStatuses(s.bare)
	s.must(err)
	s.equal("uploads left", len(uploads), 0)
}

func TestDiffAppliesAgain(t *testing.T) {
	s := begin(t)
	s.twoLayers()
	snaps := s.client.SnapshotService(snapshotter)
	parent := ""
	for n, pair := range [][2]string{{"", "base"}, {"base", "top"}} {
		desc, err := s.compare(pair[0], pair[1])
		s.must(err)
		key := fmt.Sprintf("again-%d", n)
		mounts, err := snaps.Prepare(s.ctx, key, parent)
		s.must(err)
		applied, err := s.client.DiffService().Apply(s.ctx, desc, mounts)
		s.must(err)
		s.equal("what was applied", applied, s.uncompressed(desc))
		parent = "done-" + key
		s.must(snaps.Commit(s.ctx, parent, key))
	}
	s.equal("tree", s.tree(parent), s.tree("top"))
	s.equal("tree", s.tree("top"), []string{
		"./ 755", "d/ 711", "d/two 640 two", "link -> d/one", "new 640 n", "new-too 640 n",
		"same 640 " + s.ns,
	})
}

func (s *scene) uncompressed(desc ocispec.Descriptor) ocispec.Descriptor {
	s.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(s.read(desc.Digest)))
	s.must(err)
	plain, err := io.ReadAll(unpacked)
	s.must(err)
	return describe(ocispec.MediaTypeImageLayer, plain)
}

func TestDiffApplyRefused(t *testing.T) {
	s := begin(t)
	snaps := s.client.SnapshotService(snapshotter)
	differ := s.client.DiffService()
	mounts, err := snaps.Prepare(s.ctx, "key", "")
	s.must(err)
	missing := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: numbered(1), Size: 1}
	_, err = differ.Apply(s.ctx, missing, mounts)
	s.fails("a blob that is not there", err, errdefs.ErrNotFound)
	text := []byte(s.ns + " is no tar" + string(make([]byte, 1024)))
	desc := describe("text/plain", text)
	s.write(s.ctx, desc, text)
	if _, err = differ.Apply(s.ctx, desc, mounts); err == nil {
		s.Error("a text was applied as a layer")
	}
	desc.MediaType = ocispec.MediaTypeImageLayer
	if _, err = differ.Apply(s.ctx, desc, mounts); err == nil {
		s.Error("no tar was applied as a layer")
	}
	_, err = differ.Apply(context.Background(), desc, mounts)
	s.fails("in no namespace", err, errdefs.ErrFailedPrecondition)
}

// The client's own way to unpack layers one by one, and to make one of a snapshot.
func TestDiffByRootfs(t *testing.T) {
	s := begin(t)
	b := s.apart()
	s.put(b)
	layers := []rootfs.Layer{}
	for n, desc := range b.layers {
		layers = append(layers, rootfs.Layer{
			Blob: desc,
			Diff: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: b.diffIDs[n]},
		})
	}
	snaps := s.client.SnapshotService(snapshotter)
	chain, err := rootfs.ApplyLayers(s.ctx, layers, snaps, s.client.DiffService())
	s.must(err)
	s.equal("chain ID", chain.String(), b.chain())
	s.equal("tree", s.tree(b.chain()), s.shown())
	mounts, err := snaps.Prepare(s.ctx, "work", b.chain())
	s.must(err)
	s.must(mount.WithTempMount(s.bare, mounts, func(root string) error { return put(root, "new", "n") }))
	desc, err := rootfs.CreateDiff(s.ctx, "work", snaps, s.client.DiffService(),
		diff.WithMediaType(ocispec.MediaTypeImageLayer))
	s.must(err)
	s.equal("entries", s.entries(bytes.NewReader(s.read(desc.Digest))), []string{"0 new 640 n"})
	// Layers that are not what they are said to be.
	layers[2].Diff.Digest = numbered(1)
	if _, err := rootfs.ApplyLayers(s.ctx, layers, snaps, s.client.DiffService()); err == nil {
		s.Error("a layer passed for another")
	}
}
