//! Panics that are violations: caught, with where they happened, and not printed.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `body`; a panic is its words and place.
pub(super) fn catch(body: impl FnOnce()) -> Result<(), String> {
    install();
    QUIET.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    QUIET.set(false);
    outcome.map_err(|_| LAST.take())
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| if QUIET.get() { LAST.set(describe(info)) } else { before(info) }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let words = info.payload();
    let words = words.downcast_ref::<String>().map(String::as_str).or(words.downcast_ref::<&str>().copied());
    let words = words.unwrap_or("a panic without words");
    // What the harness finds it says itself; anything else is a defect at a place.
    match info.location().filter(|place| !place.file().contains("scenarios")) {
        Some(place) => format!("panic at {place}: {words}"),
        None => words.to_owned(),
    }
}
