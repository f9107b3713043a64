//! The files of the page, built into the program.

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::guard::Problem;
use crate::site::Site;

/// A file by its name.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../assets/", $name)))),*];
    };
}

files![
    "index.html",
    "icon.svg",
    "base.css",
    "parts.css",
    "views.css",
    "announce.js",
    "api.js",
    "deliveries.js",
    "devices.js",
    "dom.js",
    "events.js",
    "format.js",
    "live.js",
    "main.js",
    "route.js",
    "samples.js",
    "spark.js",
    "states.js",
    "theme.js",
    "timeline.js",
    "token.js",
    "tunnel.js",
    "tunnels.js",
];

/// `/` and `/assets/NAME`.
pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/", get(|| async { file("index.html") }))
        .route("/assets/{name}", get(|Path(name): Path<String>| async move { file(&name) }))
}

fn file(name: &str) -> Response {
    let found = FILES.iter().find(|(known, _)| *known == name).zip(kind(name));
    match found {
        Some(((_, text), kind)) => ([(CONTENT_TYPE, kind)], *text).into_response(),
        None => Problem::not_found("the page has no such file").into_response(),
    }
}

fn kind(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(name: &str) -> &'static str {
        FILES.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| *text)
    }

    #[test]
    fn every_file_is_built_in_and_has_a_type() {
        let built_in: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/assets")).unwrap();
        let on_disk: BTreeSet<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(built_in, on_disk);
        assert!(FILES.iter().all(|(name, _)| kind(name).is_some()));
    }

    /// What an import names must be there, or the page stays empty.
    #[test]
    fn everything_that_is_named_is_there() {
        let named = |text: &'static str, before: &str, after: char| -> Vec<&'static str> {
            text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
        };
        for (file, text) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            for import in named(text, "from \"./", '"') {
                assert!(FILES.iter().any(|(name, _)| *name == import), "{file} imports {import}");
            }
        }
        let wanted = named(text("index.html"), "\"/assets/", '"');
        assert!(wanted.len() >= 5);
        for import in wanted {
            assert!(FILES.iter().any(|(name, _)| *name == import), "index.html names {import}");
        }
    }

    /// The policy that browsers are given would refuse them, and it would take a browser to notice.
    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        let html = text("index.html");
        for unwanted in ["<style", " style=", "onclick=", "onload=", "<script>"] {
            assert!(!html.contains(unwanted), "{unwanted}");
        }
        for (name, text) in FILES {
            let elsewhere = text.replace("http://www.w3.org/", "");
            assert!(!elsewhere.contains("://"), "{name}");
            for unwanted in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(unwanted), "{name}: {unwanted}");
            }
        }
    }
}
