//! The guest's files: an initramfs of Debian's programs, their libraries, kernel modules and our own programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::archive::Archive;
use crate::elf::Libraries;
use crate::module::{self, Module};
use crate::packages::Packages;
use crate::tool;

/// Our programs beside the guest's own.
const OWN: [&str; 3] = ["cygnetd", "swanctl", "cygnet"];

/// Programs and files of the packages that go into the image.
const FILES: [&str; 10] = [
    "usr/bin/busybox",
    "usr/bin/certutil",
    "usr/bin/dash",
    "usr/bin/ip",
    "usr/bin/ss",
    "usr/bin/tcpdump",
    "usr/sbin/charon-systemd",
    "usr/sbin/ipsec",
    "usr/sbin/swanctl",
    "usr/sbin/tc",
];
/// Folders of which everything goes in: the two peers' own programs, plugins and settings, and lists of names.
const FOLDERS: [&str; 5] =
    ["etc", "usr/lib/ipsec/plugins", "usr/libexec/ipsec", "usr/lib/x86_64-linux-gnu/nss", "var/lib/ipsec"];
/// Libraries that programs load by name when they run, by the beginning of that name.
const LOADED: [&str; 4] = ["libsoftokn3.", "libfreebl", "libnssckbi.", "libnssdbm3."];
/// Where the packages have libraries.
const LIBRARIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib/ipsec", "lib/x86_64-linux-gnu"];

/// Busybox's own shell prefers busybox's programs to those of the same name in the path (`ip`), so it is not the guest's.
const LINKS: [(&str, &str); 6] = [
    ("usr/bin/sh", "dash"),
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
];
const EMPTY: [&str; 10] =
    ["dev", "proc", "sys", "run", "tmp", "root", "var/log", "var/run", "etc/netns", "usr/share/empty"];

const TEXTS: [(&str, &str); 5] = [
    ("etc/passwd", "root:x:0:0:root:/:/usr/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n"),
    ("etc/resolv.conf", ""),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// Writes the image and says where it is.
///
/// # Errors
/// A package lacks what it is known for, or one of our programs has not been built.
pub(crate) fn build(packages: &Packages, nic: &[Module], guest: &Path, store: &Path) -> anyhow::Result<PathBuf> {
    let path = store.join("initrd");
    let mut archive = Archive::create(&path)?;
    for (link, target) in LINKS {
        archive.link(link, target)?;
    }
    archive.device("dev/console", (5, 1))?;
    EMPTY.iter().try_for_each(|folder| archive.folder(folder))?;
    for (name, text) in TEXTS {
        archive.file(name, false, text.as_bytes())?;
    }
    archive.file("init", true, include_bytes!("init.sh"))?;
    let own = own_programs(guest, store)?;
    for program in &own {
        add(&mut archive, program, &format!("lab/{}", name(program)))?;
    }
    programs(&mut archive, packages, &own)?;
    modules(&mut archive, &module::distribution(packages, store)?, nic)?;
    archive.finish()?;
    Ok(path)
}

/// Our programs without what only debuggers read.
fn own_programs(guest: &Path, store: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = store.join("programs");
    fs::create_dir_all(&folder)?;
    let mut stripped = Vec::new();
    for path in std::iter::once(Ok(guest.to_owned())).chain(OWN.map(lab::peer::binary)) {
        let path = path?;
        let target = folder.join(name(&path));
        if is_newer(&path, &target)? {
            tool::output(Command::new("strip").arg("--strip-all").arg("-o").arg(&target).arg(&path))?;
        }
        stripped.push(target);
    }
    Ok(stripped)
}

fn is_newer(path: &Path, than: &Path) -> anyhow::Result<bool> {
    let built = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.modified()?;
    Ok(fs::metadata(than).and_then(|entry| entry.modified()).map_or(true, |time| time < built))
}

/// Debian's programs with all libraries that they and our own need.
fn programs(archive: &mut Archive, packages: &Packages, own: &[PathBuf]) -> anyhow::Result<()> {
    let root = packages.programs();
    let mut files: Vec<PathBuf> = FILES.iter().map(|path| root.join(path)).collect();
    for folder in FOLDERS {
        let folder = root.join(folder);
        files.extend(if folder.is_dir() { tool::files_below(&folder)? } else { Vec::new() });
    }
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let loaded = |path: &PathBuf| LOADED.iter().any(|start| name(path).starts_with(start));
    files.extend(tool::files_below(&libraries)?.into_iter().filter(loaded));
    for file in &files {
        add(archive, file, &relative(file, &root)?)?;
    }
    let needing: Vec<PathBuf> = files.iter().chain(own).cloned().collect();
    let found = Libraries::find(&LIBRARIES.map(|folder| root.join(folder)))?;
    check_c_library(&packages.programs())?;
    for path in found.needed_by(&needing)?.values() {
        add(archive, path, &relative(path, &root)?)?;
    }
    applets(archive, &root.join("usr/bin/busybox"))
}

/// Programs linked here ask for symbols up to this machine's C library, and the guest's must have them.
fn check_c_library(root: &Path) -> anyhow::Result<()> {
    let libc = root.join("usr/lib/x86_64-linux-gnu/libc.so.6");
    let theirs = tool::output(Command::new("readelf").args(["--version-info", "--wide"]).arg(&libc))?;
    let ours = tool::output(Command::new("ldd").arg("--version"))?;
    let version = ours.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    ensure!(
        theirs.contains(&format!("GLIBC_{version}")),
        "programs built here ask for the C library {version}, and the guest's (Debian 13) is older: build on Debian 12 or 13"
    );
    Ok(())
}

/// A name for each of busybox's programs that is not there as a program of its own.
fn applets(archive: &mut Archive, busybox: &Path) -> anyhow::Result<()> {
    for applet in tool::output(Command::new(busybox).arg("--list"))?.lines() {
        archive.link(&format!("usr/bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// Modules in the order in which they are loaded, one a line with its parameters, the test NIC last.
fn modules(archive: &mut Archive, distribution: &[Module], nic: &[Module]) -> anyhow::Result<()> {
    let mut order = String::new();
    for module in distribution.iter().chain(nic) {
        add(archive, &module.path, &format!("lab/modules.d/{}", module.name))?;
        order += format!("{} {}", module.name, module.parameters).trim_end();
        order.push('\n');
    }
    archive.file("lab/modules", false, order.as_bytes())?;
    Ok(())
}

fn add(archive: &mut Archive, file: &Path, path: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let octets = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let executable = fs::metadata(file)?.permissions().mode() & 0o100 != 0;
    archive.file(path, executable, &octets)?;
    Ok(())
}

fn relative(path: &Path, root: &Path) -> anyhow::Result<String> {
    Ok(path.strip_prefix(root)?.to_string_lossy().into_owned())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
