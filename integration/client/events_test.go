package client

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/events"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/typeurl"
)

// How long a test waits for an event that has to come.
const patience = 30 * time.Second

// subscription is what comes by filters, from after begun to before ended.
type subscription struct {
	*scene
	came   <-chan *events.Envelope
	failed <-chan error
	cancel context.CancelFunc
}

// mark is an event of nobody's.
func (s *scene) mark(topic string) {
	s.Helper()
	s.must(s.client.EventService().Publish(s.bare, topic, &apievents.NamespaceUpdate{Name: "mark"}))
}

// subscribe returns when it is heard what happens. The filters are among those of the marks, so that
// whatever they are, marks come.
func (s *scene) subscribe(filters ...string) *subscription {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.Cleanup(cancel)
	mine := ",namespace==" + s.ns
	filters = append(filters, `topic=="/test/begin"`+mine, `topic=="/test/end"`+mine)
	came, failed := s.client.Subscribe(ctx, filters...)
	sub := &subscription{s, came, failed, cancel}
	for began := time.Now(); time.Since(began) < patience; {
		s.mark("/test/begin")
		select {
		case envelope := <-came:
			s.equal("the first", envelope.Topic, "/test/begin")
			return sub
		case err := <-failed:
			s.Fatalf("subscribe by %q: %v", filters, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.Fatalf("nothing comes by %q", filters)
	return nil
}

// events are those that came until now.
func (sub *subscription) events() []*events.Envelope {
	sub.Helper()
	sub.mark("/test/end")
	found := []*events.Envelope{}
	deadline := time.After(patience)
	for {
		select {
		case envelope := <-sub.came:
			switch envelope.Topic {
			case "/test/begin":
			case "/test/end":
				sub.cancel()
				return found
			default:
				found = append(found, envelope)
			}
		case err := <-sub.failed:
			sub.Fatalf("the stream ended: %v", err)
		case <-deadline:
			sub.Fatal("the end does not come")
		}
	}
}

func (sub *subscription) topics() []string {
	sub.Helper()
	topics := []string{}
	for _, envelope := range sub.events() {
		topics = append(topics, envelope.Topic)
	}
	return topics
}

// happen makes one event of each kind.
func (s *scene) happen() {
	s.Helper()
	ctx := s.ctx
	dgst := s.blob("one")
	store := s.client.ImageService()
	image := s.image("i", dgst, "k", "v")
	image.Labels = map[string]string{"k": "w"}
	_, err := store.Update(ctx, image, "labels.k")
	s.must(err)
	s.must(store.Delete(ctx, "i"))
	snaps := s.client.SnapshotService(snapshotter)
	_, err = snaps.Prepare(ctx, "key", "")
	s.must(err)
	s.must(snaps.Commit(ctx, "base", "key"))
	_, err = snaps.View(ctx, "view", "base")
	s.must(err)
	_, err = snaps.Update(ctx, snapshots.Info{Name: "base", Labels: map[string]string{"k": "v"}}, "labels.k")
	s.must(err)
	s.must(snaps.Remove(ctx, "view"))
	s.must(s.client.ContentStore().Delete(ctx, dgst))
}

// told is an event in a line, with all its fields that this client knows.
func told(envelope *events.Envelope) string {
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return fmt.Sprint(envelope.Topic, " ", envelope.Event.TypeUrl)
	}
	fields := []interface{}{}
	switch e := event.(type) {
	case *apievents.ImageCreate:
		fields = append(fields, e.Name, e.Labels)
	case *apievents.ImageUpdate:
		fields = append(fields, e.Name, e.Labels)
	case *apievents.ImageDelete:
		fields = append(fields, e.Name)
	case *apievents.SnapshotPrepare:
		fields = append(fields, e.Key, e.Parent)
	case *apievents.SnapshotCommit:
		fields = append(fields, e.Key, e.Name)
	case *apievents.SnapshotRemove:
		fields = append(fields, e.Key)
	case *apievents.ContentDelete:
		fields = append(fields, e.Digest)
	case *apievents.NamespaceCreate:
		fields = append(fields, e.Name, e.Labels)
	case *apievents.NamespaceUpdate:
		fields = append(fields, e.Name, e.Labels)
	case *apievents.NamespaceDelete:
		fields = append(fields, e.Name)
	}
	return strings.TrimRight(fmt.Sprintf("%s %T %v", envelope.Topic, event, fields), " ")
}

func TestEventPayloads(t *testing.T) {
	s := begin(t)
	sub := s.subscribe("namespace==" + s.ns)
	before := time.Now().Add(-time.Second)
	s.happen()
	found := []string{}
	for _, envelope := range sub.events() {
		s.equal("namespace", envelope.Namespace, s.ns)
		if envelope.Timestamp.Before(before) || envelope.Timestamp.After(time.Now().Add(time.Second)) {
			s.Errorf("%s happened at %v", envelope.Topic, envelope.Timestamp)
		}
		found = append(found, told(envelope))
	}
	expected := []string{
		"/images/create *events.ImageCreate [i map[k:v]]",
		"/images/update *events.ImageUpdate [i map[k:w]]",
		"/images/delete *events.ImageDelete [i]",
		// Neither View nor Update is told of.
		"/snapshot/prepare *events.SnapshotPrepare [key ]",
		"/snapshot/commit *events.SnapshotCommit [key base]",
		"/snapshot/remove *events.SnapshotRemove [view]",
		"/content/delete *events.ContentDelete [" + describe("", []byte(s.ns+" one")).Digest.String() + "]",
	}
	if !*old {
		// Came with 2.0, and this client does not know its type.
		expected = append([]string{"/content/create containerd.events.ContentCreate"}, expected...)
	}
	s.equal("events", found, expected)
}

func TestEventsOfNamespaces(t *testing.T) {
	s := begin(t)
	store := s.client.NamespaceService()
	name := s.ns + ".made"
	sub := s.subscribe(`topic~="^/namespaces/",event.name==` + name)
	s.must(store.Create(s.bare, name, map[string]string{"k": "v"}))
	s.must(store.SetLabel(s.bare, name, "l", "w"))
	s.must(store.Delete(s.bare, name))
	found := []string{}
	for _, envelope := range sub.events() {
		in := envelope.Namespace
		// 1.6 tells of some of them in the namespace of who asked.
		if in == name || *old && in == s.ns {
			in = "there"
		}
		found = append(found, in+" "+told(envelope))
	}
	s.equal("events", found, []string{
		"there /namespaces/create *events.NamespaceCreate [" + name + " map[k:v]]",
		"there /namespaces/update *events.NamespaceUpdate [" + name + " map[l:w]]",
		"there /namespaces/delete *events.NamespaceDelete [" + name + "]",
	})
}

func TestEventFilters(t *testing.T) {
	s := begin(t)
	in := ",namespace==" + s.ns
	tests := []struct{ filter, topics string }{
		{`topic=="/images/create"` + in, "/images/create"},
		{`topic~="^/images/"` + in, "/images/create /images/update /images/delete"},
		{`topic~=/images/` + in, "/images/create /images/update /images/delete"},
		{`topic!="/images/create",topic~="^/images/"` + in, "/images/update /images/delete"},
		{"event.name==i" + in, "/images/create /images/update /images/delete"},
		{"event.labels.k==v" + in, "/images/create"},
		{"event.key==key" + in, "/snapshot/prepare /snapshot/commit"},
		{"event.name==base" + in, "/snapshot/commit"},
		{"event.nonsense==x" + in, ""},
		{"namespace==" + s.ns + "-none", ""},
	}
	subs := []*subscription{}
	for _, test := range tests {
		subs = append(subs, s.subscribe(test.filter))
	}
	either := s.subscribe(`topic=="/images/create"`+in, `topic=="/snapshot/remove"`+in)
	s.happen()
	for n, test := range tests {
		s.equal(test.filter, subs[n].topics(), words(test.topics))
	}
	s.equal("one or the other", either.topics(), words("/images/create /snapshot/remove"))
}

func TestEventFiltersRefused(t *testing.T) {
	s := begin(t)
	for _, filter := range []string{"topic=/images/create", "topic==/images/create", "topic=="} {
		_, failed := s.client.Subscribe(context.Background(), filter)
		select {
		case err := <-failed:
			// The class is lost in containerd.
			if err == nil {
				s.Errorf("%s: ended without an error", filter)
			}
		case <-time.After(patience):
			s.Errorf("%s: not refused", filter)
		}
	}
}

// Without a filter all that happens comes, whosever it is.
func TestEventsOfAllNamespaces(t *testing.T) {
	s := begin(t)
	o := s.other("b")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	came, failed := s.client.Subscribe(ctx)
	missing := map[string]bool{s.ns: true, o.ns: true}
	for deadline := time.After(patience); len(missing) > 0; {
		s.mark("/test/here")
		o.mark("/test/there")
		select {
		case envelope := <-came:
			delete(missing, envelope.Namespace)
		case err := <-failed:
			s.Fatal(err)
		case <-deadline:
			s.Fatalf("nothing comes of %v", missing)
		}
	}
}

func TestEventPublishAndForward(t *testing.T) {
	s := begin(t)
	service := s.client.EventService()
	sub := s.subscribe("namespace==" + s.ns)
	event := &apievents.NamespaceCreate{Name: "n", Labels: map[string]string{"k": "v"}}
	s.must(service.Publish(s.bare, "/test/a.b/c_d", event))
	packed, err := typeurl.MarshalAny(event)
	s.must(err)
	at := time.Unix(1500000000, 5).UTC()
	forward := func(ns, topic string, at time.Time) error {
		return service.Forward(context.Background(), &events.Envelope{
			Timestamp: at, Namespace: ns, Topic: topic, Event: packed,
		})
	}
	s.must(forward(s.ns, "/test/forwarded", at))
	for _, topic := range []string{"", "/", "test", "/test/", "//test", "/te st", "/-", "/" + strings.Repeat("a", 77)} {
		s.fails("publish "+topic, service.Publish(s.bare, topic, event), errdefs.ErrInvalidArgument)
		s.fails("forward "+topic, forward(s.ns, topic, at), errdefs.ErrInvalidArgument)
	}
	err = service.Publish(context.Background(), "/test/a", event)
	s.fails("publish in no namespace", err, errdefs.ErrFailedPrecondition)
	s.fails("forward in none that is one", forward("-", "/test/a", at), errdefs.ErrInvalidArgument)
	s.fails("forward of no time", forward(s.ns, "/test/a", time.Time{}), errdefs.ErrInvalidArgument)
	found := sub.events()
	lines := []string{}
	for _, envelope := range found {
		lines = append(lines, told(envelope))
	}
	s.equal("what came", lines, []string{
		"/test/a.b/c_d *events.NamespaceCreate [n map[k:v]]",
		"/test/forwarded *events.NamespaceCreate [n map[k:v]]",
	})
	if len(found) == 2 && !found[1].Timestamp.Equal(at) {
		s.Errorf("forwarded at %v, not %v", found[1].Timestamp, at)
	}
}

// Of what a collection removes 1.6 tells nothing, 2.3 of images and snapshots.
func TestEventsOfCollection(t *testing.T) {
	s := begin(t)
	s.snapshot("base", "")
	s.snapshot("top", "base")
	s.blob("one")
	s.image("i", s.blob("two"), expire, past)
	sub := s.subscribe("namespace==" + s.ns)
	s.drop(hold)
	found := []string{}
	for _, envelope := range sub.events() {
		found = append(found, told(envelope))
	}
	sort.Strings(found)
	expected := []string{}
	if !*old {
		expected = []string{
			"/images/delete *events.ImageDelete [i]",
			"/snapshot/remove *events.SnapshotRemove [base]",
			"/snapshot/remove *events.SnapshotRemove [top]",
		}
	}
	s.equal("events", found, expected)
}
