// containerd's own test suites for a snapshotter and a store of content, run through the proxies by
// which containerd reaches its plugins.
//
// Built outside of modules, from what Debian packages of containerd 1.6.
package suites

import (
	"context"
	"flag"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/content"
	contentproxy "github.com/containerd/containerd/content/proxy"
	contentsuite "github.com/containerd/containerd/content/testsuite"
	"github.com/containerd/containerd/pkg/dialer"
	"github.com/containerd/containerd/snapshots"
	snapshotsproxy "github.com/containerd/containerd/snapshots/proxy"
	snapshotssuite "github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

// What containerd's own connections to its plugins take.
const messageBytesMax = 16 << 20

var address = flag.String("address", "", "socket of the backend")

func dial(t *testing.T) *grpc.ClientConn {
	conn, err := grpc.Dial(
		dialer.DialAddress(*address),
		grpc.WithInsecure(),
		grpc.WithContextDialer(dialer.ContextDialer),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(messageBytesMax),
			grpc.MaxCallSendMsgSize(messageBytesMax),
		),
	)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func nothing() error { return nil }

func TestContent(t *testing.T) {
	store := contentproxy.NewContentStore(contentapi.NewContentClient(dial(t)))
	contentsuite.ContentSuite(t, "backend", func(ctx context.Context, _ string) (context.Context, content.Store, func() error, error) {
		return ctx, store, nothing, nil
	})
}

// The suite asks an "overlayfs" for no renaming of directories across layers; what the snapshotter is
// called is another matter.
func TestSnapshots(t *testing.T) {
	snapshotter := snapshotsproxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(dial(t)), "cairn")
	snapshotssuite.SnapshotterSuite(t, "overlayfs", func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
		return snapshotter, nothing, nil
	})
}
