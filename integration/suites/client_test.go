package suites

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	contentsuite "github.com/containerd/containerd/content/testsuite"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	snapshotssuite "github.com/containerd/containerd/snapshots/testsuite"
)

// The same suites by the client, on a socket that is there for clients.

func connect(t *testing.T) *containerd.Client {
	client, err := containerd.New(*address)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

var spaces int64

// apart is a namespace that no other case has, with a lease in it, so that nothing is collected.
func apart(ctx context.Context, client *containerd.Client) (context.Context, func(context.Context) error, error) {
	ctx = namespaces.WithNamespace(ctx, fmt.Sprintf("suite-%d", atomic.AddInt64(&spaces, 1)))
	lease, err := client.LeasesService().Create(ctx, leases.WithRandomID())
	if err != nil {
		return nil, nil, err
	}
	end := func(ctx context.Context) error { return client.LeasesService().Delete(ctx, lease) }
	return leases.WithLease(ctx, lease.ID), end, nil
}

func TestClientContent(t *testing.T) {
	client := connect(t)
	begin := func(ctx context.Context, _ string) (context.Context, content.Store, func() error, error) {
		ctx, end, err := apart(ctx, client)
		if err != nil {
			return nil, nil, nil, err
		}
		another := func(ctx context.Context) (context.Context, func(context.Context) error, error) {
			return apart(ctx, client)
		}
		close := func() error { return end(ctx) }
		return contentsuite.SetContextWrapper(ctx, another), client.ContentStore(), close, nil
	}
	contentsuite.ContentSuite(t, "client", begin)
	contentsuite.ContentCrossNSSharedSuite(t, "client", begin)
}

func TestClientSnapshots(t *testing.T) {
	client := connect(t)
	snapshotssuite.SnapshotterSuite(t, "overlayfs", func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
		return client.SnapshotService("overlayfs"), nothing, nil
	})
}
