package client

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"sort"
	"strings"
	"testing"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/images/archive"
	"github.com/containerd/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// file is one of an archive.
type file struct {
	name string
	data []byte
}

func archived(files ...file) io.Reader {
	var packed bytes.Buffer
	writer := tar.NewWriter(&packed)
	for _, f := range files {
		header := tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		if err := writer.WriteHeader(&header); err != nil {
			panic(err)
		}
		if _, err := writer.Write(f.data); err != nil {
			panic(err)
		}
	}
	if err := writer.Close(); err != nil {
		panic(err)
	}
	return &packed
}

func encoded(document interface{}) []byte {
	data, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return data
}

// laidOut is an OCI layout that lists images by names.
func laidOut(names map[string]*built) io.Reader {
	files := []file{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	sorted := []string{}
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	for _, name := range sorted {
		desc := names[name].manifest
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, desc)
		for _, blob := range names[name].blobs {
			files = append(files, file{"blobs/sha256/" + blob.Digest.Encoded(), blob.data})
		}
	}
	return archived(append(files, file{"index.json", encoded(index)})...)
}

func named(found []images.Image) []string {
	names := []string{}
	for _, image := range found {
		names = append(names, image.Name)
	}
	sort.Strings(names)
	return names
}

func TestImportLayout(t *testing.T) {
	s := begin(t)
	b := s.apart()
	made, err := s.client.Import(s.ctx, laidOut(map[string]*built{"one": b}),
		containerd.WithImageRefTranslator(archive.AddRefPrefix("localhost/t")),
		containerd.WithDigestRef(archive.DigestTranslator("localhost/t")),
	)
	s.must(err)
	byDigest := "localhost/t@" + b.manifest.Digest.String()
	s.equal("names", named(made), []string{"localhost/t:one", byDigest})
	for _, name := range named(made) {
		image, err := s.client.ImageService().Get(s.bare, name)
		s.must(err)
		s.equal("target", image.Target.Digest, b.manifest.Digest)
	}
	s.equal("what the manifest holds", s.labels(b.manifest.Digest), map[string]string{
		"containerd.io/gc.ref.content.config": b.config.Digest.String(),
		"containerd.io/gc.ref.content.l.0":    b.layers[0].Digest.String(),
		"containerd.io/gc.ref.content.l.1":    b.layers[1].Digest.String(),
		"containerd.io/gc.ref.content.l.2":    b.layers[2].Digest.String(),
	})
	for _, blob := range b.blobs {
		s.equal("bytes", s.read(blob.Digest), blob.data)
		s.texts[blob.Digest] = blob.MediaType[strings.LastIndex(blob.MediaType, ".image.")+7:]
	}
	s.drop(hold)
	s.equal("what is left", s.left(), []string{
		"blob:config.v1+json", "blob:layer.v1.tar", "blob:layer.v1.tar+gzip", "blob:layer.v1.tar+gzip",
		"blob:manifest.v1+json", "image:localhost/t:one", "image:" + byDigest,
	})
	// Deleted with the last of its names.
	s.must(s.client.ImageService().Delete(s.bare, byDigest, images.SynchronousDelete()))
	s.equal("with one name less", len(s.left()), 6)
	s.must(s.client.ImageService().Delete(s.bare, "localhost/t:one", images.SynchronousDelete()))
	s.equal("at last", s.left(), []string{})
}

func TestImportUnpack(t *testing.T) {
	s := begin(t)
	b := s.apart()
	made, err := s.client.Import(s.ctx, laidOut(map[string]*built{"localhost/t:one": b}))
	s.must(err)
	s.equal("names", named(made), words("localhost/t:one"))
	image := containerd.NewImage(s.client, made[0])
	unpacked, err := image.IsUnpacked(s.bare, snapshotter)
	s.must(err)
	s.equal("unpacked, before", unpacked, false)
	s.must(image.Unpack(s.ctx, snapshotter))
	unpacked, err = image.IsUnpacked(s.bare, snapshotter)
	s.must(err)
	s.equal("unpacked", unpacked, true)
	s.equal("tree", s.tree(b.chain()), s.shown())
	s.equal("what the configuration holds", s.labels(b.config.Digest), map[string]string{refSnapshot: b.chain()})
	for n, desc := range b.layers[:2] {
		s.equal("diff ID", s.labels(desc.Digest), map[string]string{
			"containerd.io/uncompressed": b.diffIDs[n].String(),
		})
	}
	// Twice is once.
	s.must(image.Unpack(s.ctx, snapshotter))
	size, err := image.Size(s.bare)
	s.must(err)
	var sum int64
	for _, blob := range b.blobs {
		sum += blob.Size
	}
	s.equal("size", size, sum)
	diffIDs, err := image.RootFS(s.bare)
	s.must(err)
	s.equal("diff IDs", diffIDs, b.diffIDs)
	s.drop(hold)
	s.equal("what is held", len(s.left()), 9)
	s.must(s.client.ImageService().Delete(s.bare, "localhost/t:one", images.SynchronousDelete()))
	s.equal("at last", s.left(), []string{})
}

func TestImportWhatDockerSaves(t *testing.T) {
	s := begin(t)
	b := s.apart()
	files := []file{}
	paths := []string{}
	config := ""
	for _, blob := range b.blobs {
		switch {
		case blob.Digest == b.config.Digest:
			config = blob.Digest.Encoded() + ".json"
			files = append(files, file{config, blob.data})
		case blob.Digest != b.manifest.Digest:
			path := blob.Digest.Encoded() + "/layer.tar"
			paths = append(paths, path)
			files = append(files, file{path, blob.data})
		}
	}
	files = append(files, file{"manifest.json", encoded([]map[string]interface{}{
		{"Config": config, "RepoTags": []string{"t:one", "localhost/t:two"}, "Layers": paths},
	})})
	made, err := s.client.Import(s.ctx, archived(files...), containerd.WithIndexName("localhost/all:1"))
	s.must(err)
	s.equal("names", named(made), words("docker.io/library/t:one localhost/all:1 localhost/t:two"))
	image, err := s.client.GetImage(s.bare, "localhost/t:two")
	s.must(err)
	s.must(image.Unpack(s.ctx, snapshotter))
	s.equal("tree", s.tree(b.chain()), s.shown())
}

func TestImportOfWhatIsNone(t *testing.T) {
	s := begin(t)
	b := s.apart()
	for what, stream := range map[string]io.Reader{
		"nothing":            archived(),
		"no layout":          archived(file{"index.json", encoded(ocispec.Index{})}),
		"another layout":     archived(file{"oci-layout", []byte(`{"imageLayoutVersion":"2.0.0"}`)}),
		"what is no archive": strings.NewReader(strings.Repeat("x", 1024)),
		"what breaks off":    io.MultiReader(io.LimitReader(laidOut(map[string]*built{"one": b}), 1000), broken{}),
	} {
		if _, err := s.client.Import(s.ctx, stream); err == nil {
			s.Errorf("%s is an image", what)
		}
	}
	s.drop(hold)
	for _, found := range s.left() {
		if !strings.HasPrefix(found, "ingest:") {
			s.Errorf("%s is left", found)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// An index keeps only what the client has of it: the machine's own image, or all.
func TestImportSeveralPlatforms(t *testing.T) {
	s := begin(t)
	mine := s.apart()
	other := "s390x"
	index := several(map[string]*built{
		runtime.GOARCH: mine,
		other:          build(other, layer(entry{"other", s.ns})),
	})
	_, err := s.client.Import(s.ctx, laidOut(map[string]*built{"localhost/t:all": index}), containerd.WithAllPlatforms(true))
	s.must(err)
	o := s.other("one")
	_, err = o.client.Import(o.ctx, laidOut(map[string]*built{"localhost/t:mine": index}),
		containerd.WithImportPlatform(platforms.DefaultStrict()))
	s.must(err)
	s.drop(hold)
	o.drop(hold)
	s.equal("all blobs, and the image", len(s.left()), len(index.blobs)+1)
	s.equal("mine, the index, and the image", len(o.left()), len(mine.blobs)+2)
	image, err := s.client.ImageService().Get(s.bare, "localhost/t:all")
	s.must(err)
	found, err := images.Platforms(s.bare, s.client.ContentStore(), image.Target)
	s.must(err)
	for _, platform := range found {
		ok, _, _, missing, err := images.Check(s.bare, s.client.ContentStore(), image.Target, platforms.OnlyStrict(platform))
		s.must(err)
		s.equal(platform.Architecture+" is whole", []bool{ok, len(missing) == 0}, []bool{true, true})
	}
	ok, _, _, _, err := images.Check(o.bare, o.client.ContentStore(), image.Target,
		platforms.OnlyStrict(ocispec.Platform{OS: "linux", Architecture: other}))
	if err == nil && ok {
		s.Error("what was left out is whole")
	}
}

func TestExport(t *testing.T) {
	s := begin(t)
	b := s.apart()
	s.put(b)
	for _, name := range []string{"localhost/t:one", "localhost/t:two"} {
		_, err := s.client.ImageService().Create(s.ctx, images.Image{Name: name, Target: b.manifest})
		s.must(err)
	}
	var out bytes.Buffer
	store := s.client.ImageService()
	s.must(s.client.Export(s.ctx, &out, archive.WithImage(store, "localhost/t:one"), archive.WithImage(store, "localhost/t:two")))
	names := []string{}
	for reader := tar.NewReader(bytes.NewReader(out.Bytes())); ; {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		s.must(err)
		names = append(names, header.Name)
		data, err := io.ReadAll(reader)
		s.must(err)
		if strings.HasPrefix(header.Name, "blobs/sha256/") && len(data) > 0 {
			s.equal(header.Name, digest.FromBytes(data).Encoded(), header.Name[len("blobs/sha256/"):])
		}
	}
	expected := words("blobs/ blobs/sha256/ index.json manifest.json oci-layout")
	for _, blob := range b.blobs {
		expected = append(expected, "blobs/sha256/"+blob.Digest.Encoded())
	}
	sort.Strings(expected)
	s.equal("files", names, expected)
	// It is what it was.
	o := s.other("b")
	made, err := o.client.Import(o.ctx, bytes.NewReader(out.Bytes()))
	s.must(err)
	s.equal("images", named(made), words("localhost/t:one localhost/t:two"))
	for _, image := range made {
		s.equal("target", image.Target.Digest, b.manifest.Digest)
	}
	// A blob that is not there is missed.
	s.must(s.client.ContentStore().Delete(s.ctx, b.layers[1].Digest))
	err = s.client.Export(s.ctx, io.Discard, archive.WithImage(store, "localhost/t:one"))
	s.fails("without a layer", err, errdefs.ErrNotFound)
	err = s.client.Export(s.ctx, io.Discard, archive.WithImage(store, "localhost/t:none"))
	s.fails("of no image", err, errdefs.ErrNotFound)
}
