//! What is doubtful about updown scripts, as far as their first word says: a program that is not there, or that others can change and have run as
//! the daemon's user.

use ike_model::Connection;

use crate::load_conn::{Finding, FindingKind};
use crate::settings::FileSource;

/// Doubts about the scripts of a connection's children.
pub(super) fn doubts(connection: &Connection, source: &dyn FileSource) -> Vec<Finding> {
    let scripts = connection.children.iter().filter_map(|child| Some((child, child.updown.as_ref()?)));
    let doubt = |(child, updown): (&std::sync::Arc<ike_model::Child>, &std::sync::Arc<ike_model::Updown>)| {
        let program = program(&updown.script)?;
        let (what, help) = source.program_trouble(program)?;
        let path = format!("connections.{}.children.{}.updown", connection.name, child.name);
        let finding = Finding::new(FindingKind::Doubtful("updown".to_owned()), path);
        let finding = finding.because(format!("{program} {what}")).with_help(Some(help.to_owned()));
        Some(Finding { fragment: Some(program.to_owned()), ..finding })
    };
    scripts.filter_map(doubt).collect()
}

/// The program that a shell command begins with, if it is named by its whole path.
fn program(script: &str) -> Option<&str> {
    let mut words = script.split([' ', '\t', '\n', ';', '&', '|', '<', '>', '(', ')']).filter(|word| !word.is_empty());
    let first = words.find(|word| *word != "exec")?;
    // What the shell would change is not known.
    (first.starts_with('/') && !first.contains(['$', '`', '"', '\'', '\\', '*', '?', '['])).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::settings::OsFiles;

    #[test]
    fn only_a_whole_path_is_looked_at() {
        for (script, expected) in [
            ("/etc/cygnet/updown arg", Some("/etc/cygnet/updown")),
            ("  exec /bin/true;x", Some("/bin/true")),
            ("/bin/true>/dev/null", Some("/bin/true")),
            ("iptables -A FORWARD", None),
            ("$HOME/x", None),
            ("/bin/$X", None),
            ("\"/a b\"", None),
            ("", None),
        ] {
            assert_eq!(program(script), expected, "{script}");
        }
    }

    #[test]
    fn programs_that_are_missing_or_open_to_others_are_told() {
        let directory = std::env::temp_dir().join(format!("updown-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mode = |path: &std::path::Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let file = directory.join("script");
        let of = |path: &std::path::Path| OsFiles.program_trouble(&path.to_string_lossy()).map(|(what, _)| what);
        mode(&directory, 0o755);
        assert_eq!(of(&file), Some("does not exist"));
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        for (bits, expected) in [
            (0o644, Some("is not executable")),
            (0o755, None),
            (0o757, Some("can be changed by everybody")),
            (0o700, None),
        ] {
            mode(&file, bits);
            assert_eq!(of(&file), expected, "{bits:o}");
        }
        mode(&directory, 0o777);
        assert_eq!(of(&file), Some("can be replaced by everybody"));
        assert_eq!(of(&directory), Some("is not a file"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_doubtful_script_is_a_warning_at_its_place() {
        let directory = std::env::temp_dir().join(format!("updown-plan-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let conf = directory.join("swanctl.conf");
        let child = "children {\n net {\n updown = exec /nonexistent/script arg\n }\n fine {\n updown = /bin/sh -c true\n }\n }\n";
        let text = format!(
            "connections {{\n a {{\n local {{\n auth = psk\n }}\n {child} }}\n}}\nsecrets {{\n ike {{\n secret = x\n }}\n}}\n"
        );
        std::fs::write(&conf, text).unwrap();
        std::fs::set_permissions(&conf, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = crate::settings::Settings::load(&OsFiles, &conf.to_string_lossy());
        let plan = crate::plan::Plan::make(&settings, &OsFiles);
        assert!(!plan.has_errors() && plan.usable_connections().count() == 1);
        let found: Vec<String> = plan.findings.iter().map(|finding| finding.render(settings.sources())).collect();
        let [found] = &found[..] else { panic!("{found:#?}") };
        for words in [
            "swanctl.conf:8:16: warning: `updown`",
            "/nonexistent/script does not exist",
            "^^^^^^^^^^^^^^^^^^^",
            "help: correct the path",
        ] {
            assert!(found.contains(words), "{words}: {found}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
