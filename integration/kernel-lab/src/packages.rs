//! Debian's packages: fetched with an apt configuration of our own, unpacked, never installed.
//!
//! The kernel is the newest 6.12 of bookworm's security archive, as that archive itself says; the guest's programs and libraries are
//! Debian 13's (trixie). Whoever builds on Debian 12 links against an older C library than the guest's, so our programs run there too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::tool;

/// Both signed by keys of this ring, the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const SOURCES: [&str; 2] =
    ["http://deb.debian.org/debian trixie main", "http://deb.debian.org/debian-security bookworm-security main"];

/// The kernel's packages are named after its version: `linux-image-6.12.N+deb12-cloud-amd64`.
const KERNEL_PREFIX: &str = "linux-image-6.12.";
const KERNEL_SUFFIX: &str = "+deb12-cloud-amd64";

/// Sets of programs; each set is resolved by itself, because packages of different sets exclude each other.
const SETS: [&[&str]; 2] = [
    &[
        "busybox-static",
        "charon-systemd",
        "dash",
        "iproute2",
        "libcharon-extra-plugins",
        "libstrongswan-standard-plugins",
        "strongswan-swanctl",
        "tcpdump",
    ],
    &["libreswan"],
];

/// What an earlier version of this file has left is not taken for ours.
const LAYOUT: &str = "1";

/// Unpacked packages.
#[derive(Debug)]
pub(crate) struct Packages {
    /// The kernel's release, as `uname -r` says it.
    pub(crate) release: String,
    root: PathBuf,
}

impl Packages {
    /// Finds what an earlier run unpacked, or fetches it.
    ///
    /// # Errors
    /// The archive cannot be reached, or lacks a package.
    pub(crate) fn ensure(store: &Path, update: bool) -> anyhow::Result<Self> {
        let root = store.join("packages");
        let stamp = root.join("stamp");
        let wanted = format!("{LAYOUT} {SETS:?}");
        if !update
            && let Ok(text) = fs::read_to_string(&stamp)
            && let Some((release, made_of)) = text.split_once('\n')
            && made_of == wanted
        {
            return Ok(Packages { release: release.to_owned(), root });
        }
        println!("kernel-lab: fetching Debian's packages ...");
        remove(&root)?;
        let packages = fetch(&root)?;
        fs::write(&stamp, format!("{}\n{wanted}", packages.release))?;
        Ok(packages)
    }

    /// The kernel's image.
    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.kernel().join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The root of the kernel's unpacked packages; `lib/modules` lies in it.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.root.join("kernel")
    }

    /// Where modules are built against.
    pub(crate) fn headers(&self) -> PathBuf {
        self.kernel().join("usr/src").join(format!("linux-headers-{}", self.release))
    }

    /// The root of the guest's unpacked programs and libraries.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn fetch(root: &Path) -> anyhow::Result<Packages> {
    let apt = Apt::prepare(&root.join("apt"))?;
    let release = apt.newest_kernel()?;
    let packages = Packages { release, root: root.to_owned() };
    for package in kernel_packages(&packages.release) {
        apt.download(&[&package])?;
    }
    unpack(&apt.downloads(), &packages.kernel())?;
    relocate_headers(&packages)?;
    tool::output(Command::new("depmod").arg("-b").arg(packages.kernel()).arg(&packages.release))?;
    remove(&apt.downloads())?;
    for set in SETS {
        apt.download_closure(set)?;
    }
    unpack(&apt.downloads(), &packages.programs())?;
    // Lists and archives are no longer needed; a later fetch takes new ones.
    remove(&apt.directory)?;
    Ok(packages)
}

/// The image, its headers, what those share with other flavours, and the programs of the kernel's build.
fn kernel_packages(release: &str) -> [String; 4] {
    let version = release.trim_end_matches("-cloud-amd64");
    [
        format!("linux-image-{release}"),
        format!("linux-headers-{release}"),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{version}"),
    ]
}

/// The headers' makefile names the common ones by where they would be installed.
fn relocate_headers(packages: &Packages) -> anyhow::Result<()> {
    let makefile = packages.headers().join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| format!("reading {}", makefile.display()))?;
    let here = format!("{}/usr/src/", packages.kernel().display());
    ensure!(text.contains(" /usr/src/"), "{} does not include the common headers as expected", makefile.display());
    fs::write(&makefile, text.replace(" /usr/src/", &format!(" {here}")))?;
    Ok(())
}

/// Unpacks every archive of a folder, without manuals and the like.
fn unpack(archives: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into)?;
    for archive in tool::files_below(archives)?.iter().filter(|path| path.extension().is_some_and(|e| e == "deb")) {
        let pipe = "dpkg --fsys-tarfile \"$1\" | tar -x -C \"$2\" --exclude=./usr/share";
        tool::output(Command::new("sh").args(["-ec", pipe, "sh"]).arg(archive).arg(into))?;
    }
    Ok(())
}

/// apt with lists, state and archives of its own; the machine's proxy settings stay in force.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn prepare(directory: &Path) -> anyhow::Result<Self> {
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: install the package debian-archive-keyring");
        for folder in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(directory.join(folder))?;
        }
        let apt = Apt { directory: directory.canonicalize()? };
        let sources: String = SOURCES.iter().map(|source| format!("deb [signed-by={KEYRING}] {source}\n")).collect();
        fs::write(apt.directory.join("sources.list"), sources)?;
        fs::write(apt.directory.join("status"), "")?;
        fs::write(apt.directory.join("apt.conf"), apt.settings())?;
        apt.get(&["update"]).context("fetching Debian's lists of packages")?;
        Ok(apt)
    }

    fn settings(&self) -> String {
        let own = self.directory.display();
        format!(
            "Dir::State \"{own}\";\nDir::State::lists \"{own}/lists\";\nDir::State::status \"{own}/status\";\n\
             Dir::Cache \"{own}\";\nDir::Cache::archives \"{own}/archives\";\n\
             Dir::Etc::sourcelist \"{own}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::Etc::preferencesparts \"-\";\n\
             Dir::Etc::preferences \"-\";\nAPT::Architecture \"amd64\";\n#clear APT::Architectures;\n\
             APT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             APT::Keep-Downloaded-Packages \"true\";\n#clear APT::Update::Post-Invoke;\n#clear DPkg::Post-Invoke;\n"
        )
    }

    fn downloads(&self) -> PathBuf {
        self.directory.join("archives")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.directory.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn get(&self, words: &[&str]) -> anyhow::Result<String> {
        tool::output(self.command("apt-get").args(["--quiet", "--yes"]).args(words))
    }

    /// Fetches packages without what they depend on.
    fn download(&self, packages: &[&str]) -> anyhow::Result<()> {
        fs::create_dir_all(self.downloads())?;
        tool::output(self.command("apt-get").arg("download").args(packages).current_dir(self.downloads())).map(drop)
    }

    /// Fetches packages with all that they depend on.
    fn download_closure(&self, packages: &[&str]) -> anyhow::Result<()> {
        fs::create_dir_all(self.downloads().join("partial"))?;
        let mut words = vec!["install", "--download-only"];
        words.extend_from_slice(packages);
        self.get(&words).map(drop)
    }

    fn newest_kernel(&self) -> anyhow::Result<String> {
        let names = tool::output(self.command("apt-cache").args(["pkgnames", KERNEL_PREFIX]))?;
        match newest_kernel(&names) {
            Some(release) => Ok(release),
            None => bail!("Debian's archive has no package {KERNEL_PREFIX}*{KERNEL_SUFFIX} any more"),
        }
    }
}

/// The release with the highest number, out of a list of package names.
fn newest_kernel(names: &str) -> Option<String> {
    let number = |name: &str| name.strip_prefix(KERNEL_PREFIX)?.strip_suffix(KERNEL_SUFFIX)?.parse::<u32>().ok();
    let newest = names.lines().filter(|name| number(name).is_some()).max_by_key(|name| number(name))?;
    newest.strip_prefix("linux-image-").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_is_the_newest_kernel() {
        let names = "linux-image-6.12.9+deb12-cloud-amd64\nlinux-image-6.12.117+deb12-cloud-amd64\n\
                     linux-image-6.12.117+deb12-amd64\nlinux-image-6.12.200+deb12-cloud-amd64-dbg\n";
        assert_eq!(newest_kernel(names).as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest_kernel("linux-image-6.1.0-1-cloud-amd64\n"), None);
    }

    #[test]
    fn the_kernels_packages_share_its_version() {
        let [_, _, common, programs] = kernel_packages("6.12.117+deb12-cloud-amd64");
        assert_eq!(
            (common.as_str(), programs.as_str()),
            ("linux-headers-6.12.117+deb12-common", "linux-kbuild-6.12.117+deb12")
        );
    }
}
