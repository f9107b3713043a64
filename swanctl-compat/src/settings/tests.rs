//! The grammar, one fact per row, and the exact text of each syntax finding.

use std::collections::BTreeMap;
use std::io;

use super::*;

/// Files in memory.
#[derive(Default)]
pub(crate) struct MemoryFiles(pub(crate) BTreeMap<String, Vec<u8>>);

impl MemoryFiles {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
    }
}

impl FileSource for MemoryFiles {
    fn expand(&self, pattern: &str) -> Vec<String> {
        let components: Vec<&str> = pattern.split('/').collect();
        let fits = |path: &&String| {
            let parts: Vec<&str> = path.split('/').collect();
            parts.len() == components.len() && parts.iter().zip(&components).all(|(part, c)| glob::matches(c, part))
        };
        self.0.keys().filter(fits).cloned().collect()
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(text) if text == b"<unreadable>" => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            Some(text) => Ok(text.clone()),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn canonical(&self, path: &str) -> String {
        path.to_owned()
    }

    fn world_readable(&self, _path: &str) -> bool {
        false
    }
}

fn load(text: &str) -> Settings {
    load_files(&[("/etc/s.conf", text)])
}

fn load_files(files: &[(&str, &str)]) -> Settings {
    Settings::load(&MemoryFiles::new(files), "/etc/s.conf")
}

/// The resolved tree in one line: `key=value` and `section{...}`, keys first.
fn shown(settings: &Settings) -> String {
    fn show(view: &View<'_>, out: &mut Vec<String>) {
        for entry in view.entries() {
            let value = entry.value.as_ref().and_then(Value::as_str).unwrap_or_default();
            out.push(format!("{}={value}", entry.name));
        }
        for section in view.sections() {
            let mut inner = Vec::new();
            show(&section, &mut inner);
            out.push(format!("{}{{{}}}", section.name(), inner.join(" ")));
        }
    }
    let mut out = Vec::new();
    show(&settings.view(), &mut out);
    out.join(" ")
}

#[track_caller]
fn accepts(text: &str, expected: &str) {
    let settings = load(text);
    assert!(settings.diagnostics().is_empty(), "{text:?}: {:?}", settings.diagnostics());
    assert_eq!(shown(&settings), expected, "{text:?}");
}

fn rendered(settings: &Settings) -> String {
    settings.diagnostics().iter().map(|finding| finding.render(settings.sources())).collect()
}

#[test]
fn statements() {
    accepts("", "");
    accepts("a = 1", "a=1");
    accepts("a=1\nb = 2\n", "a=1 b=2");
    accepts("a { b = 1 }", "a{b=1}");
    accepts("a { b = 1 } c { d = 2 }", "a{b=1} c{d=2}");
    accepts("a\n{\n b = 1\n}\n", "a{b=1}");
    accepts("a # why\n{ }", "a{}");
    accepts("a {\n  b {\n    c = 1\n  }\n}\r\n", "a{b{c=1}}");
    accepts("a{b{c=1}}", "a{b{c=1}}");
    accepts("a\n = 1", "a=1");
    accepts("t { x = 1 }\na\n : t\n{ }", "t{x=1} a{x=1}");
}

#[test]
fn values() {
    accepts("a = one two   three", "a=one two three");
    accepts("a = one\ttwo", "a=one two");
    accepts("a = x#comment", "a=x");
    accepts("a = x # comment\nb = 2", "a=x b=2");
    accepts("a = { = , :", "a={ = , :");
    accepts("a = 'quoted'", "a='quoted'");
    accepts("s { a = 1}", "s{a=1}");
    accepts("a = \"one  two # } \"", "a=one  two # } ");
    accepts("a = one \"two  three\" four", "a=one two  three four");
    accepts("a = one\"two\"", "a=one two");
    accepts(r#"a = "x\"y\\z""#, r#"a=x"y\z"#);
    accepts(r#"a = "\q""#, "a=q");
    accepts("a = \"x\\\n  y\"", "a=x  y");
    accepts(r#"a = "t\tn\nr\rx""#, "a=t\tn\nr\rx");
    accepts("a = \"two\nlines\"", "a=two\nlines");
    accepts("a = \"cr\r\nlf\"", "a=cr\nlf");
    accepts("a = \"\"", "a=");
}

#[test]
fn repetition_merges() {
    accepts("a = 1\nb = 2\na = 3", "a=3 b=2");
    accepts("s { a = 1 }\nt { x = 1 }\ns { b = 2 }", "s{a=1 b=2} t{x=1}");
    accepts("s { i { a = 1 } }\ns { i { a = 2\nb = 3 } }", "s{i{a=2 b=3}}");
    let settings = load("a = 1\na = 2");
    let entry = settings.root().entry("a").unwrap();
    assert_eq!(entry.name_span.line, 2);
    assert_eq!(entry.replaced.unwrap().line, 1);
}

#[test]
fn an_empty_value_hides() {
    accepts("a =\nb = 1", "b=1");
    accepts("t { a = 1\nb = 2 }\ns : t { a = }", "t{a=1 b=2} s{b=2}");
    accepts("t { a = }\nu { a = 1 }\ns : t, u { }", "t{} u{a=1} s{}");
}

#[test]
fn references() {
    // Own keys win and come first; then each reference in order, depth first.
    accepts("t { a = t\nb = t }\ns : t { b = s }", "t{a=t b=t} s{b=s a=t}");
    accepts("t { a = t }\nu { a = u\nc = u }\ns : t, u { }", "t{a=t} u{a=u c=u} s{a=t c=u}");
    accepts("s : t { }\nt : u { }\nu { a = u }", "s{a=u} t{a=u} u{a=u}");
    accepts("x { y { a = 1 } }\ns : x.y { }", "x{y{a=1}} s{a=1}");
    // Sections of the referenced section show up as well, and a parent's references apply to its children.
    accepts("t { c { a = t\nb = t } }\ns : t { c { a = s } }", "t{c{a=t b=t}} s{c{a=s b=t}}");
    accepts("t { c { a = 1 } }\ns : t { d { } }", "t{c{a=1}} s{d{} c{a=1}}");
    // Appearances in several places add references.
    accepts("t { a = 1 }\nu { b = 2 }\ns : t { }\ns : u { }", "t{a=1} u{b=2} s{a=1 b=2}");
    accepts("s : missing { a = 1 }", "s{a=1}");
}

#[test]
fn reference_loops_are_cut() {
    accepts("s : s { a = 1 }", "s{a=1}");
    accepts("s : t { a = 1 }\nt : s { b = 2 }", "s{a=1 b=2} t{b=2 a=1}");
    let settings = load("s : s.x { a = 1\nx : s { } }");
    assert!(settings.view().section("s").unwrap().get("a").is_some());
}

#[test]
fn a_tangle_of_references_ends() {
    let mut text = String::new();
    for i in 0..40 {
        text.push_str(&format!("s{i} : s{}.k, s{}.k {{ k : s{}, s{} {{ }} }}\n", i + 1, i + 2, i + 1, i + 2));
    }
    let settings = load(&text);
    assert!(settings.view().section("s0").is_some());
}

#[test]
fn includes() {
    let files = [
        ("/etc/s.conf", "a { include conf.d/*.conf\n z = 1 }\ninclude /abs/x.conf # why\ninclude none.d/*\n"),
        ("/etc/conf.d/1.conf", "b = 1\nc { d = 1 }"),
        ("/etc/conf.d/2.conf", "b = 2\ninclude ../deep/e.conf"),
        ("/etc/conf.d/../deep/e.conf", "e = 1"),
        ("/etc/conf.d/.hidden.conf", "b = 9"),
        ("/abs/x.conf", "x = 1"),
    ];
    let settings = load_files(&files);
    assert_eq!(rendered(&settings), "");
    assert_eq!(shown(&settings), "x=1 a{b=2 e=1 z=1 c{d=1}}");
    // The word alone is an ordinary key or section.
    accepts("include = 1", "include=1");
    accepts("include{ a = 1 }", "include{a=1}");
    accepts("include\n{ a = 1 }", "include{a=1}");
    accepts("included = 1", "included=1");
}

/// strongSwan goes on where an include gives nothing; so does this, and says so.
#[test]
fn what_an_include_cannot_give_is_left_out() {
    for (text, code) in [
        ("include none.conf\nx = 1", "include-missing"),
        ("include \"\"\nx = 1", "bad-include"),
        ("include s.conf\nx = 1", "include-loop"),
        ("include # nothing\nx = 1", "bad-include"),
    ] {
        let settings = load(text);
        let codes: Vec<_> = settings.diagnostics().iter().map(|found| (found.severity, found.code)).collect();
        assert_eq!(codes, [(Severity::Warning, code)], "{text}");
        assert_eq!(shown(&settings), "x=1", "{text}");
    }
    // A brace behind a blank is a pattern, too.
    let settings = load("x = 1\ninclude { a = 1 }");
    assert!(rendered(&settings).contains("included file /etc/{ does not exist"), "{}", rendered(&settings));
    assert!(rendered(&settings).contains("`}` without an open section"), "{}", rendered(&settings));
}

#[test]
fn include_patterns_may_be_quoted() {
    let files = [
        ("/etc/s.conf", "include \"my files/a.conf\"\ninclude my\\ files/b.conf\n"),
        ("/etc/my files/a.conf", "a = 1"),
        ("/etc/my files/b.conf", "b = 1"),
    ];
    assert_eq!(shown(&load_files(&files)), "a=1 b=1");
}

#[test]
fn spans_name_the_place() {
    let settings = load("a {\n  key = \"va\"  lue # c\n}\n");
    let entry = settings.root().section("a").unwrap().entry("key").unwrap();
    assert_eq!((entry.name_span.line, entry.name_span.column), (2, 3));
    assert_eq!((entry.value_span.line, entry.value_span.column), (2, 9));
    assert_eq!((entry.value_span.start, entry.value_span.end), (12, 21));
}

/// What is printed, to the character.
#[test]
fn syntax_findings() {
    let cases = [
        (
            "a = 1\n}\n",
            "/etc/s.conf:2:1: error: `}` without an open section\n 2 | }\n   | ^\n  help: remove it, or look for a section above that was closed too early\n",
        ),
        (
            "a {\n  b {\n    c = 1\n}\n",
            "/etc/s.conf:1:1: error: section `a` is not closed before the end of the file\n 1 | a {\n   | ^\n  help: add the missing `}`\n",
        ),
        (
            "a = \"open\nb = 2\n",
            "/etc/s.conf:1:5: error: this quote is never closed\n 1 | a = \"open\n   |     ^\n  help: add the closing `\"`; a quote inside a quoted string is written `\\\"`\n",
        ),
        (
            "s {\n\ta\n\tb = 2 }",
            "/etc/s.conf:2:3: error: expected `=` or `{` after `a`\n 2 |  a\n   |   ^\n  help: write `key = value` for a setting and `name {` for a section; a value goes on in the next line only inside quotes\n",
        ),
        (
            "= 1",
            "/etc/s.conf:1:1: error: expected a key, a section name, `include` or `}`\n 1 | = 1\n   | ^\n  help: names cannot hold blanks or any of . , : { } = \" #; put text with such characters into quotes on the right of `=`\n",
        ),
        (
            "a.b = 1",
            "/etc/s.conf:1:2: error: expected `=` or `{` after `a`\n 1 | a.b = 1\n   |  ^\n  help: write `key = value` for a setting and `name {` for a section; a value goes on in the next line only inside quotes\n",
        ),
        (
            "a : {",
            "/etc/s.conf:1:5: error: expected the path of a section to inherit from\n 1 | a : {\n   |     ^\n  help: a reference is a path from the root, such as `defaults.ike`; several are separated by commas\n",
        ),
        (
            "include conf.d/one.conf\n",
            "/etc/s.conf:1:9: warning: included file /etc/conf.d/one.conf does not exist\n 1 | include conf.d/one.conf\n   |         ^^^^^^^^^^^^^^^\n  help: create it, correct the name, or use a pattern such as `conf.d/*.conf`, which may match nothing\n",
        ),
        (
            "\ninclude s.conf\n",
            "/etc/s.conf:2:9: warning: include loop: /etc/s.conf -> /etc/s.conf\n 2 | include s.conf\n   |         ^^^^^^\n  help: remove one of these includes\n",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rendered(&load(text)), expected, "{text:?}");
    }
}

#[test]
fn findings_name_the_included_file() {
    let files = [("/etc/s.conf", "include a.conf\nx = 1"), ("/etc/a.conf", "k {\n"), ("/etc/b.conf", "")];
    let settings = load_files(&files);
    assert!(rendered(&settings).starts_with("/etc/a.conf:1:1: error: section `k` is not closed"));
    assert_eq!(shown(&settings), "x=1 k{}");
    let files = [("/etc/s.conf", "include a.conf"), ("/etc/a.conf", "<unreadable>")];
    assert!(
        rendered(&load_files(&files))
            .contains("/etc/s.conf:1:9: warning: cannot read included file /etc/a.conf: permission denied")
    );
    assert!(rendered(&load_files(&[])).contains("error: cannot read /etc/s.conf: entity not found"));
}

#[test]
fn loops_over_several_files_are_found() {
    let files =
        [("/etc/s.conf", "include a.conf"), ("/etc/a.conf", "include b.conf"), ("/etc/b.conf", "include a.conf")];
    assert!(
        rendered(&load_files(&files))
            .contains("/etc/b.conf:1:9: warning: include loop: /etc/a.conf -> /etc/b.conf -> /etc/a.conf")
    );
    let many: Vec<(String, String)> =
        (0..20).map(|i| (format!("/etc/{i}.conf"), format!("include {}.conf", i + 1))).collect();
    let mut files: Vec<(&str, &str)> = many.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    files.push(("/etc/s.conf", "include 0.conf"));
    assert!(rendered(&load_files(&files)).contains("includes nest deeper than 10 levels"));
}

/// Carets stand below characters, whatever octets these take.
#[test]
fn carets_stand_below_characters() {
    let settings = load("ä { ÖÜ = \"ß\" } =");
    assert_eq!(
        rendered(&settings).lines().take(3).collect::<Vec<_>>(),
        [
            "/etc/s.conf:1:20: error: expected a key, a section name, `include` or `}`",
            " 1 | ä { ÖÜ = \"ß\" } =",
            "   |                ^",
        ]
    );
}

/// Files that include all of their directory are read in every order, but not for ever.
#[test]
fn files_that_include_each_other_come_to_an_end() {
    let names: Vec<String> = (0..12).map(|i| format!("/etc/{i}.conf")).collect();
    let files: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "include *.conf")).chain([("/etc/s.conf", "include 0.conf")]).collect();
    let files = MemoryFiles::new(&files);
    let mut loader = parser::Loader::new(&files);
    loader.most = 500;
    loader.root_file("/etc/s.conf");
    let settings = loader.finish();
    let [finding] = settings.diagnostics() else { panic!("{:?}", settings.diagnostics()) };
    assert_eq!((finding.severity, finding.message.as_str()), (Severity::Error, "more than 500 files are included"));
}

#[test]
fn files_of_the_system_have_an_end_and_are_no_directories() {
    let error = OsFiles.read("/dev/zero").unwrap_err();
    assert_eq!(error.to_string(), "more than 67108864 octets");
    let directory = std::env::temp_dir().join(format!("swanctl-include-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("conf.d")).unwrap();
    let file = directory.join("s.conf");
    std::fs::write(&file, "include conf.d\n").unwrap();
    let text = rendered(&Settings::load(&OsFiles, &file.to_string_lossy()));
    assert!(
        text.ends_with(&format!("help: include the files in it: `{}/conf.d/*.conf`\n", directory.display())),
        "{text}"
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn nesting_is_bounded() {
    let settings = load(&"a {\n".repeat(100_000));
    assert!(rendered(&settings).contains("sections nest deeper than 64 levels"));
}

#[test]
fn long_and_odd_names() {
    assert!(rendered(&load(&format!("{} = 1", "n".repeat(256)))).contains("this name has 256 octets"));
    let files = MemoryFiles([("/etc/s.conf".to_owned(), b"\xff = 1".to_vec())].into());
    let settings = Settings::load(&files, "/etc/s.conf");
    assert!(rendered(&settings).contains("this name is not UTF-8 text"));
    // Values may hold any octets.
    let files = MemoryFiles([("/etc/s.conf".to_owned(), b"a = \xff".to_vec())].into());
    let settings = Settings::load(&files, "/etc/s.conf");
    assert_eq!(settings.root().entry("a").unwrap().value.as_ref().unwrap().as_bytes(), b"\xff");
}

/// However a file with a secret is broken, the secret stays inside.
#[test]
fn secrets_stay_hidden() {
    let broken = [
        "secrets { ike-a { secret = \"planted\n id = a } }",
        "secrets { ike-a { secret \"planted\" } }",
        "secrets {\n ike-a {\n secret = pla}planted = x\n } }",
        "secrets {\n ike-a {\n secret = planted\n planted2 planted3\n",
        "secrets {\n ike-a {\n secret = \"one\nplanted\ntwo\"\n planted\n",
        "a { secret = planted",
        "a = \"x\nsecrets { ike { secret = \"planted\" } }\n}\n}",
        "secret.planted = 1",
        "secrets { ike { secret = x } planted.planted }",
        "url = https://user:planted@host/x y { z",
        "connections { a { secrets { ike { planted",
    ];
    for text in broken {
        let settings = load(text);
        let out = format!("{}{:?}", rendered(&settings), settings);
        assert!(!out.is_empty());
        assert!(!out.contains("planted"), "{text:?} printed {out}");
    }
}

mod robustness {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[a-c{}=:,.#\"\\\\ \n\t]{0,80}") {
            let settings = load(&text);
            let _ = shown(&settings);
            let _ = rendered(&settings);
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let files = MemoryFiles([("/etc/s.conf".to_owned(), octets)].into());
            let settings = Settings::load(&files, "/etc/s.conf");
            let _ = rendered(&settings);
        }

        #[test]
        fn quoted_values_come_back(value in "\\PC{0,30}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let settings = load(&format!("k = \"{escaped}\""));
            prop_assert_eq!(settings.root().entry("k").unwrap().value.as_ref().unwrap().as_str(), Some(value.as_str()));
        }
    }
}
