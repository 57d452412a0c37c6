package client

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/mount"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// built is an image that a test makes byte by byte.
type built struct {
	// All that it consists of, what refers to others last.
	blobs    []blob
	manifest ocispec.Descriptor
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	diffIDs  []digest.Digest
}

type blob struct {
	ocispec.Descriptor
	data []byte
}

func (b *built) add(mediaType string, data []byte) ocispec.Descriptor {
	desc := describe(mediaType, data)
	b.blobs = append(b.blobs, blob{desc, data})
	return desc
}

func (b *built) addJSON(mediaType string, document interface{}) ocispec.Descriptor {
	data, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return b.add(mediaType, data)
}

// entry is one of a layer: a directory when its name ends in "/", a link when its text begins with
// "-> ".
type entry struct{ name, text string }

func layer(entries ...entry) []byte {
	var packed bytes.Buffer
	writer := tar.NewWriter(&packed)
	for _, e := range entries {
		header := tar.Header{Name: e.name, Mode: 0o644, ModTime: time.Unix(1600000000, 0), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(e.name, "/"):
			header.Typeflag, header.Mode = tar.TypeDir, 0o755
		case strings.HasPrefix(e.text, "-> "):
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.text[3:], 0o777
		default:
			header.Size = int64(len(e.text))
		}
		if err := writer.WriteHeader(&header); err != nil {
			panic(err)
		}
		if header.Size > 0 {
			if _, err := writer.Write([]byte(e.text)); err != nil {
				panic(err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		panic(err)
	}
	return packed.Bytes()
}

func zipped(data []byte) []byte {
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if _, err := writer.Write(data); err != nil {
		panic(err)
	}
	if err := writer.Close(); err != nil {
		panic(err)
	}
	return packed.Bytes()
}

// build makes an image for a platform, of layers that are zipped but for the last.
func build(architecture string, layers ...[]byte) *built {
	b := &built{}
	for n, data := range layers {
		b.diffIDs = append(b.diffIDs, digest.FromBytes(data))
		if n == len(layers)-1 {
			b.layers = append(b.layers, b.add(ocispec.MediaTypeImageLayer, data))
		} else {
			b.layers = append(b.layers, b.add(ocispec.MediaTypeImageLayerGzip, zipped(data)))
		}
	}
	b.config = b.addJSON(ocispec.MediaTypeImageConfig, map[string]interface{}{
		"architecture": architecture,
		"os":           "linux",
		"config":       ocispec.ImageConfig{Cmd: []string{"/sh"}},
		"rootfs":       ocispec.RootFS{Type: "layers", DiffIDs: b.diffIDs},
	})
	b.manifest = b.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		Config:    b.config,
		Layers:    b.layers,
	})
	return b
}

// apart is an image of this machine that has three layers, of which no other test has any: what shows
// in the end is shown.
func (s *scene) apart() *built {
	return build(runtime.GOARCH,
		layer(entry{"name", s.ns}, entry{"d/", ""}, entry{"d/one", "1"}, entry{"d/two", "2"}, entry{"link", "-> d/one"}),
		layer(entry{"name", s.ns}, entry{"d/.wh.one", ""}, entry{"e/", ""}, entry{"e/three", "3"}),
		layer(entry{"name", s.ns}, entry{"d/two", "two"}, entry{"d/four", "4"}),
	)
}

func (s *scene) shown() []string {
	return []string{
		"./ 755", "d/ 755", "d/four 644 4", "d/two 644 two", "e/ 755", "e/three 644 3",
		"link -> d/one", "name 644 " + s.ns,
	}
}

// chain is what the top layer of an image is called when it is unpacked.
func (b *built) chain() string { return identity.ChainID(b.diffIDs).String() }

// several is an index of images of several platforms.
func several(images map[string]*built) *built {
	b := &built{}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	names := []string{}
	for architecture := range images {
		names = append(names, architecture)
	}
	sort.Strings(names)
	for _, architecture := range names {
		b.blobs = append(b.blobs, images[architecture].blobs...)
		desc := images[architecture].manifest
		desc.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
		index.Manifests = append(index.Manifests, desc)
	}
	b.manifest = b.addJSON(ocispec.MediaTypeImageIndex, index)
	return b
}

// put writes an image's blobs into the store, with the labels by which one holds the other.
func (s *scene) put(b *built) {
	s.Helper()
	for _, blob := range b.blobs {
		labels := []string{}
		if blob.Digest == b.manifest.Digest {
			for n, other := range b.blobs[:len(b.blobs)-1] {
				labels = append(labels, fmt.Sprintf("%s.%d", refContent, n), other.Digest.String())
			}
		}
		s.write(s.ctx, blob.Descriptor, blob.data, labels...)
	}
}

// tree mounts a snapshot, for which a view is made, and lists what it shows.
func (s *scene) tree(name string) []string {
	s.Helper()
	snaps := s.client.SnapshotService(snapshotter)
	key := "look-at-" + name
	mounts, err := snaps.View(s.ctx, key, name)
	s.must(err)
	var lines []string
	s.must(mount.WithTempMount(s.bare, mounts, func(root string) error {
		lines, err = list(root)
		return err
	}))
	s.must(snaps.Remove(s.ctx, key))
	return lines
}

// list has a line for each file: its path, mode and text.
func list(root string) ([]string, error) {
	lines := []string{}
	err := filepath.WalkDir(root, func(path string, found fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(path, &stat); err != nil {
			return err
		}
		mode := stat.Mode & 0o7777
		switch {
		case found.IsDir():
			lines = append(lines, fmt.Sprintf("%s/ %o", name, mode))
		case found.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			lines = append(lines, name+" -> "+to)
		case found.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("%s %o %s", name, mode, text))
		default:
			lines = append(lines, fmt.Sprintf("%s %v", name, found.Type()))
		}
		return nil
	})
	return lines, err
}
