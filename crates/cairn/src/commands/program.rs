//! `cairn events` and `cairn plugins`.

use cairn_types::filter::Filters;

use super::{Context, Result};
use crate::{
    args::{EventsArgs, PluginsArgs},
    client::Client,
    error::Problem,
    view,
};

/// `events`
pub fn events(context: &Context, args: &EventsArgs) -> Result {
    let filters: Vec<String> = args.filters.iter().map(|text| condition(text)).collect();
    // The server reads them again; here a slip is wrong usage before anything was attempted.
    Filters::parse(&filters).map_err(|err| {
        Problem::usage(err.to_string())
            .cause("known: topic==\"X\", namespace==X, event.FIELD==X; also != and ~=REGEXP")
    })?;
    let client = Client::open(&context.global)?;
    let json = context.global.wants_json();
    client.events(filters, |event| match json {
        true => context.out.json_line(&event),
        false => context.out.line(view::events(&event)),
    })?;
    Ok(())
}

/// A word without operator is the beginning of a topic.
fn condition(text: &str) -> String {
    match ["==", "!=", "~="].iter().any(|o| text.contains(o)) {
        true => text.to_owned(),
        false => {
            let topic = regex::escape(&format!("/{}", text.trim_start_matches('/')));
            format!("topic~={:?}", format!("^{topic}"))
        }
    }
}

/// `plugins`
pub fn plugins(context: &Context, args: &PluginsArgs) -> Result {
    let plugins = Client::open(&context.global)?.plugins()?;
    if context.wants_names() {
        let names: Vec<String> = plugins
            .iter()
            .map(|p| format!("{}.{}", p.kind, p.id))
            .collect();
        context.names(names.iter().map(|name| &**name));
    } else if args.detailed && !context.global.wants_json() {
        let texts: Vec<String> = plugins.iter().map(view::plugin).collect();
        context.out.text(&texts.join("\n"));
    } else {
        context.list(&view::plugins(&plugins), &plugins);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_beginning_of_a_topic() {
        assert_eq!(condition("/images"), r#"topic~="^/images""#);
        assert_eq!(condition("images/create"), r#"topic~="^/images/create""#);
        assert_eq!(condition("namespace==dev"), "namespace==dev");
        assert!(Filters::parse(&[condition("a.b\"c")]).is_ok());
    }
}
