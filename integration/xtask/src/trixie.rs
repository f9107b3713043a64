//! Debian 13's strongSwan beside the installed one: fetched and unpacked below the target directory, with the C library and whatever else it is
//! linked with, never installed.
//!
//! apt runs with lists, state and archives of its own. Where Debian's archive is reached, it takes from the machine's own sources: the same
//! place has the other release too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Failure, Outcome};

/// Debian 13.
const SUITE: &str = "trixie";

/// What is run of it; apt adds what these need.
const PACKAGES: [&str; 4] =
    ["charon-systemd", "libcharon-extra-plugins", "libstrongswan-standard-plugins", "strongswan-swanctl"];

/// Programs that must find all their libraries afterwards.
const PROGRAMS: [&str; 2] = ["usr/sbin/charon-systemd", "usr/sbin/swanctl"];

/// Debian's archive is signed by keys of this ring, the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Changes whenever this file unpacks otherwise, so that what an earlier version has left is not taken for ours.
const LAYOUT: &str = "1";

/// Prints the commands that [`ensure`] runs.
pub(crate) fn print_plan() {
    println!(
        "# Debian 13's strongSwan, into target/peers/{SUITE}; apt with lists and archives of its own, nothing is installed"
    );
    println!(
        "apt-get update                                   # of the suite {SUITE}, where the machine's own sources reach Debian"
    );
    println!("apt-get install --download-only {}", PACKAGES.join(" "));
    println!("dpkg --extract ARCHIVE target/peers/{SUITE}         # each of them");
}

/// Whether it is there already.
pub(crate) fn is_there(peers: &Path) -> bool {
    fs::read_to_string(stamp(&peers.join(SUITE))).is_ok_and(|found| found == wanted())
}

/// Fetches and unpacks it below `peers` unless it is there. Needs Debian's apt, but not root.
pub(crate) fn ensure(peers: &Path) -> Outcome {
    if is_there(peers) {
        return Ok(());
    }
    let root = peers.join(SUITE);
    println!("unpacking Debian 13's strongSwan into {}", root.display());
    remove(&root)?;
    let apt = Apt::prepare(&root.join("apt"))?;
    apt.get(&["update"])?;
    apt.get(&[&["install", "--download-only"], &PACKAGES[..]].concat())?;
    for archive in apt.archives()? {
        said(Command::new("dpkg").arg("--extract").arg(archive).arg(&root))?;
    }
    remove(&apt.directory)?;
    check(&root)?;
    // Last: what was interrupted has none.
    Ok(fs::write(stamp(&root), wanted())?)
}

fn stamp(root: &Path) -> PathBuf {
    root.join("stamp")
}

fn wanted() -> String {
    format!("{LAYOUT} {}\n", PACKAGES.join(" "))
}

fn remove(folder: &Path) -> Outcome {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::Text(format!("removing {}: {error}", folder.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Asks the unpacked loader whether each program finds its libraries among the unpacked ones.
fn check(root: &Path) -> Outcome {
    let missing = || Failure::Text(format!("no dynamic loader was unpacked below {}", root.display()));
    let mut libraries = None;
    for entry in fs::read_dir(root.join("usr/lib"))? {
        let folder = entry?.path();
        if folder.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-gnu")) {
            libraries = Some(folder);
        }
    }
    let libraries = libraries.ok_or_else(missing)?;
    let mut loader = None;
    for entry in fs::read_dir(&libraries)? {
        let file = entry?.path();
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")) {
            loader = Some(file);
        }
    }
    let loader = loader.ok_or_else(missing)?;
    let path = format!("{}:{}", libraries.display(), root.join("usr/lib/ipsec").display());
    for program in PROGRAMS {
        let program = root.join(program);
        said(Command::new(&loader).args(["--library-path", &path, "--list"]).arg(&program))?;
    }
    Ok(())
}

/// apt with everything its own but the machine's way into the network.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn prepare(directory: &Path) -> Result<Self, Failure> {
        if !Path::new(KEYRING).exists() {
            return Err(Failure::Text(format!("{KEYRING} is missing: install the package debian-archive-keyring")));
        }
        for folder in ["lists/partial", "archives/partial", "none"] {
            fs::create_dir_all(directory.join(folder))?;
        }
        let apt = Apt { directory: directory.canonicalize()? };
        let source = format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", archive()?);
        fs::write(apt.directory.join("sources.list"), source)?;
        // Nothing counts as installed: what the programs need is fetched to the last library.
        fs::write(apt.directory.join("status"), "")?;
        fs::write(apt.directory.join("apt.conf"), apt.settings())?;
        Ok(apt)
    }

    fn settings(&self) -> String {
        let own = self.directory.display();
        format!(
            "Dir::State \"{own}\";\nDir::State::lists \"{own}/lists\";\nDir::State::status \"{own}/status\";\n\
             Dir::Cache \"{own}\";\nDir::Cache::archives \"{own}/archives\";\n\
             Dir::Etc::sourcelist \"{own}/sources.list\";\nDir::Etc::sourceparts \"{own}/none\";\n\
             Dir::Etc::preferences \"{own}/none/preferences\";\nDir::Etc::preferencesparts \"{own}/none\";\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\nAPT::Keep-Downloaded-Packages \"true\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n"
        )
    }

    fn get(&self, words: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("apt-get");
        command.arg("-c").arg(self.directory.join("apt.conf")).args(["--quiet", "--yes"]).args(words);
        said(command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive"))
    }

    fn archives(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.directory.join("archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Where the machine's own sources find Debian's archive.
fn archive() -> Result<String, Failure> {
    // Who signs a source, and what it calls itself, is known once its lists were fetched.
    let targets = || {
        let format = "$(REPO_URI) $(RELEASE) $(ORIGIN)/$(LABEL)";
        said(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))
    };
    let codename = codename();
    let found = archive_among(&targets()?, codename.as_deref());
    found.ok_or_else(|| {
        Failure::Text(
            "apt has no source of Debian's own archive on this machine: Debian 13's strongSwan is fetched from there"
                .into(),
        )
    })
}

/// The first archive that calls itself Debian's, or that is said to have this machine's own release.
fn archive_among(targets: &str, codename: Option<&str>) -> Option<String> {
    let lines = || targets.lines().filter_map(|line| line.split_once(' '));
    let by_name = lines().find(|(_, rest)| rest.ends_with(" Debian/Debian"));
    // Without lists the names stay what they were in the format.
    let by_release = || {
        lines().find(|(_, rest)| {
            rest.split_once(' ').is_some_and(|(release, name)| Some(release) == codename && name.starts_with('$'))
        })
    };
    by_name.or_else(by_release).map(|(uri, _)| uri.to_owned())
}

/// This machine's release, as `os-release` names it.
fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"').to_owned())
}

/// Runs a command to its end; what it printed is shown only when it fails.
fn said(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::Text(format!("cannot run {name}: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Text(format!("{name} {} ended with {}:\n{text}{errors}", words.join(" "), output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_own_archive_is_told_from_others() {
        let targets = "http://other.example/debian/ bookworm Other/Debian\n\
                       http://security.example/ bookworm-security Debian/Debian-Security\n\
                       http://mirror.example/debian/ bookworm-updates Debian/Debian\n";
        assert_eq!(archive_among(targets, Some("bookworm")).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(archive_among("http://other.example/ bookworm Other/Other\n", Some("bookworm")), None);
    }

    #[test]
    fn before_the_first_update_the_release_tells() {
        let targets = "http://security.example/ bookworm-security $(ORIGIN)/$(LABEL)\n\
                       http://mirror.example/debian/ bookworm $(ORIGIN)/$(LABEL)\n";
        assert_eq!(archive_among(targets, Some("bookworm")).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(archive_among(targets, None), None);
    }
}
