//! The objects of one namespace, what each keeps alive, and what is alive: kept true while records
//! change.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use cairn_meta::Timestamp;

use super::{
    item::{Facts, Item},
    labels::Conditions,
};

/// A node's number.
pub(super) type Id = u32;

/// How far something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Nothing leads to it.
    Not,
    /// Itself, with what it stands on: by a flat lease.
    Alone,
    /// With all it leads to.
    Whole,
}

/// An object, or a name that something leads to and nothing has yet.
struct Node {
    item: Arc<Item>,
    /// Its record is there.
    there: bool,
    root: bool,
    reach: Reach,
    size: u64,
    tree: u64,
    stands_on: Option<Id>,
    refs: Vec<Id>,
    rare: Option<Box<Rare>>,
}

/// What few nodes have.
#[derive(Default)]
struct Rare {
    owners: Vec<Id>,
    conditions: Vec<(Id, Conditions)>,
    used_at: Option<i128>,
    /// Nodes that have, or had, this one as an owner or in a condition.
    near: Vec<Id>,
}

/// The objects of one namespace.
pub(super) struct Graph {
    now: Timestamp,
    ids: HashMap<Arc<Item>, Id>,
    nodes: Vec<Node>,
    /// Marks are kept true from now on.
    marking: bool,
}

impl Graph {
    /// Nothing yet; times are judged as of `now`.
    pub(super) fn new(now: Timestamp, marking: bool) -> Graph {
        Graph {
            now,
            ids: HashMap::new(),
            nodes: Vec::new(),
            marking,
        }
    }

    /// The node of an item, made when there is none.
    pub(super) fn id(&mut self, item: Item) -> Id {
        if let Some(id) = self.ids.get(&item) {
            return *id;
        }
        let id = Id::try_from(self.nodes.len()).unwrap_or(Id::MAX);
        let item = Arc::new(item);
        self.ids.insert(Arc::clone(&item), id);
        self.nodes.push(Node {
            item,
            there: false,
            root: false,
            reach: Reach::Not,
            size: 0,
            tree: 0,
            stands_on: None,
            refs: Vec::new(),
            rare: None,
        });
        id
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(super) fn item(&self, id: Id) -> &Item {
        &self.node(id).item
    }

    /// As its record said last.
    pub(super) fn size(&self, id: Id) -> u64 {
        self.node(id).size
    }

    /// A snapshot's directory, as its record said last.
    pub(super) fn tree(&self, id: Id) -> u64 {
        self.node(id).tree
    }

    /// Whether the item's record is there.
    pub(super) fn has(&self, item: &Item) -> bool {
        self.ids.get(item).is_some_and(|id| self.node(*id).there)
    }

    /// The node of an item whose record is there.
    pub(super) fn find(&self, item: &Item) -> Option<Id> {
        let id = self.ids.get(item).copied();
        id.filter(|id| self.node(*id).there)
    }

    /// Those that are alive by themselves.
    pub(super) fn roots(&self) -> impl Iterator<Item = Id> + '_ {
        let ids = (0..).zip(&self.nodes);
        ids.filter(|(_, node)| node.root).map(|(id, _)| id)
    }

    /// Of each object that leads to `target` the next one on a shortest way there; of `target` itself.
    /// With `alone` only by what an object cannot be without, as flat leases hold.
    pub(super) fn ways_to(&self, target: Id, alone: bool) -> HashMap<Id, Id> {
        let mut before: HashMap<Id, Vec<Id>> = HashMap::new();
        let mut below = Vec::new();
        for (id, node) in (0..).zip(&self.nodes) {
            match alone {
                true => below.extend(node.stands_on),
                false => self.leads_to(id, &mut below),
            }
            for next in below.drain(..) {
                before.entry(next).or_default().push(id);
            }
        }
        let mut ways = HashMap::from([(target, target)]);
        let mut queue = VecDeque::from([target]);
        while let Some(at) = queue.pop_front() {
            for from in before.remove(&at).unwrap_or_default() {
                if let Entry::Vacant(way) = ways.entry(from) {
                    way.insert(at);
                    queue.push_back(from);
                }
            }
        }
        ways
    }

    /// Its record is there and nothing leads to it.
    pub(super) fn is_dead(&self, id: Id) -> bool {
        let node = self.node(id);
        node.there && node.reach == Reach::Not
    }

    /// Its record is there.
    pub(super) fn is_there(&self, id: Id) -> bool {
        self.node(id).there
    }

    /// All that are there.
    pub(super) fn all(&self) -> impl Iterator<Item = Id> + '_ {
        let ids = (0..).zip(&self.nodes);
        ids.filter(|(_, node)| node.there).map(|(id, _)| id)
    }

    /// A record was written.
    pub(super) fn set(&mut self, item: Item, facts: Facts) {
        let id = self.id(item);
        let stands_on = facts.stands_on.map(|item| self.id(item));
        let refs: Vec<Id> = facts.refs.into_iter().map(|item| self.id(item)).collect();
        let owners: Vec<Id> = facts.owners.into_iter().map(|item| self.id(item)).collect();
        let mut conditions = Vec::with_capacity(facts.conditions.len());
        for condition in facts.conditions {
            let target = self.id(Item::Snapshot(condition.key));
            conditions.push((target, condition.conditions));
        }
        let others = owners.iter().chain(conditions.iter().map(|(id, _)| id));
        for other in others.copied().collect::<Vec<Id>>() {
            let near = &mut self.rare(other).near;
            // Where a record is written again and again its name would pile up.
            if near.last() != Some(&id) {
                near.push(id);
            }
        }
        let plain = owners.is_empty() && conditions.is_empty() && facts.used_at.is_none();
        if !plain || self.node(id).rare.is_some() {
            let rare = self.rare(id);
            rare.owners = owners;
            rare.conditions = conditions;
            rare.used_at = facts.used_at;
        }
        let node = self.node_mut(id);
        node.there = true;
        node.root = facts.root;
        node.size = facts.size;
        node.tree = facts.tree;
        node.stands_on = stands_on;
        node.refs = refs;
        if self.marking {
            self.settle(id);
        }
    }

    /// A record was removed.
    pub(super) fn unset(&mut self, item: &Item) {
        let Some(id) = self.ids.get(item).copied() else {
            return;
        };
        let node = self.node_mut(id);
        node.there = false;
        node.root = false;
        node.stands_on = None;
        node.refs = Vec::new();
        if let Some(rare) = &mut node.rare {
            rare.owners = Vec::new();
            rare.conditions = Vec::new();
            rare.used_at = None;
        }
    }

    fn rare(&mut self, id: Id) -> &mut Rare {
        self.node_mut(id).rare.get_or_insert_default()
    }

    /// Marks from what is alive by itself, and keeps marks true from now on.
    pub(super) fn mark(&mut self) {
        self.marking = true;
        let ids = (0..).zip(&self.nodes);
        let roots: Vec<Id> = ids.filter(|(_, n)| n.root).map(|(id, _)| id).collect();
        for id in roots {
            self.keep(id);
        }
    }

    /// Something leads to it.
    pub(super) fn keep(&mut self, id: Id) {
        let mut queue = vec![id];
        while let Some(id) = queue.pop() {
            let node = self.node_mut(id);
            if node.reach < Reach::Whole {
                node.reach = Reach::Whole;
                self.leads_to(id, &mut queue);
            }
        }
    }

    /// A flat lease holds it: not what it refers to, but a snapshot cannot be without its parents, nor
    /// an image without its target.
    pub(super) fn keep_alone(&mut self, id: Id) {
        let mut next = Some(id);
        while let Some(id) = next {
            let node = self.node_mut(id);
            if node.reach > Reach::Not {
                break;
            }
            node.reach = Reach::Alone;
            next = node.stands_on;
        }
    }

    fn leads_to(&self, id: Id, queue: &mut Vec<Id>) {
        let node = self.node(id);
        queue.extend(node.stands_on);
        queue.extend(&node.refs);
        let Some(rare) = &node.rare else { return };
        let holds = |(target, conditions): &&(Id, Conditions)| self.holds(*target, conditions);
        queue.extend(rare.conditions.iter().filter(holds).map(|(id, _)| id));
        queue.extend(rare.near.iter().filter(|near| self.is_owned(**near, id)));
    }

    fn holds(&self, target: Id, conditions: &Conditions) -> bool {
        let rare = self.node(target).rare.as_ref();
        conditions.hold(rare.and_then(|rare| rare.used_at), self.now)
    }

    fn is_owned(&self, id: Id, owner: Id) -> bool {
        let rare = self.node(id).rare.as_ref();
        rare.is_some_and(|rare| rare.owners.contains(&owner))
    }

    /// Brings the marks up to a record that was written.
    fn settle(&mut self, id: Id) {
        let node = self.node(id);
        let mut queue = Vec::new();
        if node.root {
            queue.push(id);
        }
        if let Some(rare) = &node.rare {
            let alive = |other: &&Id| self.node(**other).reach == Reach::Whole;
            if rare.owners.iter().any(|owner| alive(&owner)) {
                queue.push(id);
            }
            for other in rare.near.iter().filter(alive) {
                let rare = self.node(*other).rare.as_ref();
                let conditions = rare.into_iter().flat_map(|rare| &rare.conditions);
                let mut ours = conditions.filter(|(target, _)| *target == id);
                if ours.any(|(_, conditions)| self.holds(id, conditions)) {
                    queue.push(id);
                }
            }
        }
        match node.reach {
            Reach::Not => {}
            Reach::Alone => {
                if let Some(below) = node.stands_on {
                    self.keep_alone(below);
                }
            }
            Reach::Whole => self.leads_to(id, &mut queue),
        }
        for id in queue {
            self.keep(id);
        }
    }

    /// What is dead, each before all that it would keep alive. (In a ring somebody has to be first.)
    pub(super) fn dead(&self) -> Vec<Id> {
        let passes = |id: Id| self.node(id).reach == Reach::Not;
        let mut seen = vec![false; self.nodes.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(Id, Vec<Id>)> = Vec::new();
        for (start, _) in (0..).zip(&self.nodes) {
            // Also those that are not there: something may live with them.
            if !passes(start) || std::mem::replace(&mut seen[start as usize], true) {
                continue;
            }
            stack.push((start, self.all_below(start)));
            while let Some((id, below)) = stack.last_mut() {
                match below.pop() {
                    Some(next) => {
                        if passes(next) && !std::mem::replace(&mut seen[next as usize], true) {
                            stack.push((next, self.all_below(next)));
                        }
                    }
                    None => {
                        order.push(*id);
                        stack.pop();
                    }
                }
            }
        }
        order.reverse();
        order.retain(|id| self.is_dead(*id));
        order
    }

    /// All that it keeps alive or might.
    fn all_below(&self, id: Id) -> Vec<Id> {
        let mut below = Vec::new();
        self.leads_to(id, &mut below);
        if let Some(rare) = &self.node(id).rare {
            below.extend(rare.conditions.iter().map(|(id, _)| id));
        }
        below
    }
}

#[cfg(test)]
mod tests;
