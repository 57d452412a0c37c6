package client

import (
	"testing"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/errdefs"
	"github.com/gogo/protobuf/types"
)

func record(id, key string, labels ...string) containers.Container {
	return containers.Container{
		ID:          id,
		Labels:      pairs(labels),
		Image:       "an image",
		Runtime:     containers.RuntimeInfo{Name: "io.containerd.runc.v2"},
		Spec:        &types.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte("{}")},
		SnapshotKey: key,
		Snapshotter: snapshotter,
		Extensions:  map[string]types.Any{"some.extension": {TypeUrl: "text", Value: []byte("e")}},
	}
}

func TestContainerRecords(t *testing.T) {
	s := begin(t)
	store := s.client.ContainerService()
	made, err := store.Create(s.ctx, record("a", "k", "color", "red"))
	s.must(err)
	wanted := record("a", "k", "color", "red")
	s.equal("labels", made.Labels, wanted.Labels)
	s.equal("runtime", made.Runtime.Name, wanted.Runtime.Name)
	s.equal("spec", made.Spec.Value, wanted.Spec.Value)
	s.equal("snapshot", made.Snapshotter+" "+made.SnapshotKey, snapshotter+" k")
	if made.CreatedAt.IsZero() || !made.CreatedAt.Equal(made.UpdatedAt) {
		s.Errorf("times %v %v", made.CreatedAt, made.UpdatedAt)
	}
	got, err := store.Get(s.bare, "a")
	s.must(err)
	s.equal("image", got.Image, "an image")
	extension := got.Extensions["some.extension"]
	s.equal("extension", string(extension.Value), "e")
	_, err = store.Create(s.ctx, record("a", "k"))
	s.fails("twice", err, errdefs.ErrAlreadyExists)
	for what, container := range map[string]containers.Container{
		"no id":           record("", "k"),
		"an id like none": record("a/b", "k"),
		"no runtime":      {ID: "b", Spec: wanted.Spec},
		"no spec":         {ID: "b", Runtime: wanted.Runtime},
		"no snapshotter":  {ID: "b", Runtime: wanted.Runtime, Spec: wanted.Spec, SnapshotKey: "k"},
	} {
		_, err := store.Create(s.ctx, container)
		s.fails(what, err, errdefs.ErrInvalidArgument)
	}
	change := record("a", "other", "color", "blue", "size", "big")
	change.Image = "another image"
	updated, err := store.Update(s.ctx, change, "labels.size", "image")
	s.must(err)
	s.equal("labels, by a mask", updated.Labels, map[string]string{"color": "red", "size": "big"})
	s.equal("image, by a mask", updated.Image, "another image")
	s.equal("what the mask does not name", updated.SnapshotKey, "k")
	_, err = store.Update(s.ctx, change, "nonsense")
	s.fails("a mask like none", err, errdefs.ErrInvalidArgument)
	_, err = store.Update(s.ctx, record("none", "k"), "labels")
	s.fails("a missing one", err, errdefs.ErrNotFound)
	_, err = store.Create(s.ctx, record("b", "k"))
	s.must(err)
	for filter, ids := range map[string]string{
		"":                         "a b",
		"id==b":                    "b",
		"labels.size==big":         "a",
		"image~=another":           "a",
		"runtime.name!=nothing":    "a b",
		"labels.color==red,id!=a":  "",
		`labels."color"~="^(r|b)"`: "a",
	} {
		found, err := store.List(s.bare, filter)
		s.must(err)
		listed := []string{}
		for _, container := range found {
			listed = append(listed, container.ID)
		}
		s.equal(filter, listed, words(ids))
	}
	_, err = store.List(s.bare, "id=")
	s.fails("a filter like none", err, errdefs.ErrInvalidArgument)
	s.must(store.Delete(s.ctx, "a"))
	s.fails("delete again", store.Delete(s.ctx, "a"), errdefs.ErrNotFound)
	_, err = store.Get(s.bare, "a")
	s.fails("get a deleted one", err, errdefs.ErrNotFound)
	// It keeps its namespace from being deleted.
	s.fails("delete the namespace", s.client.NamespaceService().Delete(s.bare, s.ns), errdefs.ErrFailedPrecondition)
}

// A container holds its snapshot and what its labels refer to.
func TestCollectContainers(t *testing.T) {
	s := begin(t)
	store := s.client.ContainerService()
	s.snapshot("base", "")
	for _, key := range []string{"held", "free"} {
		_, err := s.client.SnapshotService(snapshotter).Prepare(s.ctx, key, "base")
		s.must(err)
	}
	s.blob("free")
	_, err := store.Create(s.ctx, record("c", "held", refContent, s.blob("of-container").String()))
	s.must(err)
	s.drop(hold)
	s.equal("what is left", s.left(), words("blob:of-container snapshot:base snapshot:held"))
	s.must(store.Delete(s.bare, "c"))
	s.lease(hold)
	s.drop(hold)
	s.equal("without it", s.left(), []string{})
}
