//! The documents of an image whose layers became others: manifests name the new layers, indexes the
//! new manifests. Everything else in them stays as it is, in its order.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use cairn_types::{Classified, Descriptor, Digest, ErrorKind, ImageName, NameError};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;

use super::compress::{Packed, packed_type};
use crate::{
    intake::Chosen,
    walk::{ABOUT, Body, Tree},
};

/// Why an image cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    /// A document, which was read before, is none.
    #[error("document {digest} cannot be rewritten")]
    Json {
        /// Which.
        digest: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// A name with another digest is none.
    #[error("it cannot be named by its digest")]
    Name(#[from] NameError),
}

impl Classified for RewriteError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// An image with the layers of `packed` in the place of those of which they were made.
pub(super) fn image(
    image: Chosen,
    packed: &HashMap<Digest, Packed>,
) -> Result<Chosen, RewriteError> {
    let mut rewriting = Rewriting {
        packed,
        kept: &image.kept,
        keeps: HashSet::new(),
        renamed: HashMap::new(),
    };
    let tree = rewriting.tree(&image.tree)?;
    let Rewriting { keeps, renamed, .. } = rewriting;
    let images = image.images.iter();
    let images = images.map(|digest| renamed.get(digest).unwrap_or(digest).clone());
    let (old, new) = (&image.tree.descriptor.digest, &tree.descriptor.digest);
    let names = image.names.iter().map(|name| named(name, old, new));
    Ok(Chosen {
        names: names.collect::<Result<_, _>>()?,
        images: images.collect(),
        kept: keeps,
        tree: Arc::new(tree),
    })
}

/// A name that says what it points at goes on to say so.
fn named(name: &ImageName, old: &Digest, new: &Digest) -> Result<ImageName, NameError> {
    match name.as_str().strip_suffix(&format!("@{old}")) {
        Some(rest) => ImageName::parse(&format!("{rest}@{new}")),
        None => Ok(name.clone()),
    }
}

struct Rewriting<'a> {
    packed: &'a HashMap<Digest, Packed>,
    /// What is kept of the old image.
    kept: &'a HashSet<Digest>,
    /// What is kept of the new one.
    keeps: HashSet<Digest>,
    /// Documents that became others.
    renamed: HashMap<Digest, Digest>,
}

impl Rewriting<'_> {
    fn tree(&mut self, tree: &Tree) -> Result<Tree, RewriteError> {
        let old = &tree.descriptor.digest;
        let kept = self.kept.contains(old);
        let mut new = tree.clone();
        match &mut new.body {
            Body::Index(children) => {
                for child in children.iter_mut() {
                    *child = self.tree(child)?;
                }
                for child in children.iter_mut() {
                    self.renew(&mut child.descriptor);
                }
                let entries = children.iter().map(|child| child.descriptor.clone());
                let entries: Vec<Descriptor> = entries.collect();
                self.write(&mut new, "manifests", &entries)?;
            }
            Body::Manifest(body) if kept => {
                if body.is_image() {
                    let layers = &mut body.manifest.layers;
                    layers.iter_mut().for_each(|layer| self.repack(layer));
                }
                self.keeps.insert(body.manifest.config.digest.clone());
                let layers = body.manifest.layers.clone();
                self.keeps.extend(layers.iter().map(|l| l.digest.clone()));
                self.write(&mut new, "layers", &layers)?;
            }
            _ => {}
        }
        if kept {
            self.keeps.insert(new.descriptor.digest.clone());
        }
        Ok(new)
    }

    fn repack(&self, layer: &mut Descriptor) {
        let Some(media_type) = packed_type(&layer.media_type) else {
            return;
        };
        if let Some(packed) = self.packed.get(&layer.digest) {
            let annotations = std::mem::take(&mut layer.annotations);
            *layer = Descriptor::new(media_type, packed.digest.clone(), packed.size);
            layer.annotations = annotations;
        }
    }

    /// What is about a manifest stays about it.
    fn renew(&self, entry: &mut Descriptor) {
        if let Some(about) = entry.annotations.get_mut(ABOUT)
            && let Ok(digest) = Digest::parse(about)
            && let Some(new) = self.renamed.get(&digest)
        {
            *about = new.to_string();
        }
    }

    /// Writes what became of the descriptors under `key` into the document itself.
    fn write(
        &mut self,
        tree: &mut Tree,
        key: &str,
        entries: &[Descriptor],
    ) -> Result<(), RewriteError> {
        let old = tree.descriptor.digest.clone();
        let failed = |source| RewriteError::Json {
            digest: old.clone(),
            source,
        };
        let mut document: Json = serde_json::from_slice(&tree.bytes).map_err(failed)?;
        let mut changed = false;
        if let Some(Json::Array(places)) = document.get_mut(key) {
            for (place, entry) in places.iter_mut().zip(entries) {
                changed |= point(place, entry);
            }
        }
        if !changed {
            return Ok(());
        }
        tree.bytes = serde_json::to_vec(&document).map_err(failed)?;
        tree.descriptor.digest = Digest::of(old.algorithm(), &tree.bytes);
        tree.descriptor.size = tree.bytes.len() as u64;
        tree.descriptor.data = None;
        self.renamed.insert(old, tree.descriptor.digest.clone());
        Ok(())
    }
}

/// Makes a descriptor point at what `to` points at; whether it did not before.
fn point(place: &mut Json, to: &Descriptor) -> bool {
    let mut changed = false;
    if let (Some(about), Some(annotations)) =
        (to.annotations.get(ABOUT), place.get_mut("annotations"))
    {
        changed |= annotations.replace(ABOUT, Value::from(&**about));
    }
    if place.replace("digest", Value::from(to.digest.to_string())) {
        changed = true;
        place.replace("size", Value::from(to.size));
        place.replace("mediaType", Value::from(&*to.media_type));
        // Copies of the old bytes, here and elsewhere.
        place.remove("data");
        place.remove("urls");
    }
    changed
}

/// A document that is written back: its keys keep their order.
#[derive(Debug, PartialEq)]
enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    Other(Value),
}

impl Json {
    fn get_mut(&mut self, key: &str) -> Option<&mut Json> {
        let Json::Object(fields) = self else {
            return None;
        };
        let mut fields = fields.iter_mut();
        fields.find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Sets a field that is there; whether it was something else.
    fn replace(&mut self, key: &str, value: Value) -> bool {
        let value = Json::Other(value);
        match self.get_mut(key) {
            Some(old) if *old != value => {
                *old = value;
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, key: &str) {
        if let Json::Object(fields) = self {
            fields.retain(|(name, _)| name != key);
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Json::Array(values) => {
                let mut sequence = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    sequence.serialize_element(value)?;
                }
                sequence.end()
            }
            Json::Other(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Other(Value::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Other(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Other(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Other(Value::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Other(Value::from(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_replaced_stays_as_it_was() {
        let text = r#"{"z":1,"a":[null,true,-1,0.5,"\u00e9\n"],"m":{"y":{},"b":[],"digest":"x"}}"#;
        let mut json: Json = serde_json::from_str(text).expect("JSON");
        let written = |json: &Json| serde_json::to_string(json).expect("JSON");
        assert_eq!(written(&json), text.replace("\\u00e9", "\u{e9}"));
        let inner = json.get_mut("m").expect("m");
        assert!(inner.replace("digest", Value::from("y")));
        assert!(!inner.replace("digest", Value::from("y")));
        assert!(!inner.replace("size", Value::from(1)), "it was not there");
        inner.remove("b");
        assert!(written(&json).ends_with(r#""m":{"y":{},"digest":"y"}}"#));
    }
}
