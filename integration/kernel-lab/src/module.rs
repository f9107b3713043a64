//! Kernel modules: which of the distribution's go into the guest, in which order, and the test NIC, built here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::packages::Packages;
use crate::tool;

/// Modules of the kernel that the tests use, by name. What they need themselves comes along.
const WANTED: [&str; 30] = [
    "aesni-intel",
    "authenc",
    "authencesn",
    "cbc",
    "ccm",
    "chacha20poly1305",
    "chacha-x86_64",
    "cmac",
    "cryptd",
    "ctr",
    "dummy",
    "echainiv",
    "esp4",
    "esp4_offload",
    "esp6",
    "esp6_offload",
    "gcm",
    "ghash-clmulni-intel",
    "ghash-generic",
    "hmac",
    "poly1305-x86_64",
    "seqiv",
    "sha1_generic",
    "sha256-ssse3",
    "sha512_generic",
    "tun",
    "veth",
    "xfrm_algo",
    "xfrm_interface",
    "xfrm_user",
];

/// Enough pairs for a gateway with two devices.
const NIC_PARAMETERS: &str = "pairs=2";

/// A module's file, uncompressed.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its file name, `esp4.ko`.
    pub(crate) name: String,
    /// What it is loaded with.
    pub(crate) parameters: &'static str,
    /// Where its octets are.
    pub(crate) path: PathBuf,
}

/// Uncompresses the wanted modules, each after those that it needs.
///
/// # Errors
/// The kernel has no such module, neither apart nor built in.
pub(crate) fn distribution(packages: &Packages, store: &Path) -> anyhow::Result<Vec<Module>> {
    let folder = packages.kernel().join("lib/modules").join(&packages.release);
    let index = Index::read(&folder)?;
    let unpacked = store.join("modules").join(&packages.release);
    fs::create_dir_all(&unpacked)?;
    let mut modules = Vec::new();
    for path in index.in_order(&WANTED)? {
        let name = format!("{}.ko", stem(&path));
        let target = unpacked.join(&name);
        if !target.exists() {
            let octets = uncompressed(&folder.join(&path))?;
            fs::write(&target, octets)?;
        }
        modules.push(Module { name, parameters: "", path: target });
    }
    Ok(modules)
}

fn uncompressed(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("reading {}", path.display()));
    }
    let mut command = Command::new("xz");
    let output = command.arg("-dc").arg(path).output().map_err(|error| tool::explain(&command, &error))?;
    ensure!(output.status.success(), "`xz` cannot uncompress {}", path.display());
    Ok(output.stdout)
}

/// The file name without `.ko` and what follows; `_` and `-` are the same in module names.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_once(".ko").map_or(name, |(stem, _)| stem)
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What `depmod` says of the modules.
#[derive(Debug, Default)]
struct Index {
    /// By name: path and paths of those it needs, all of them, the direct ones first.
    modules: BTreeMap<String, (String, Vec<String>)>,
    /// Names of those that are part of the kernel's image.
    built_in: Vec<String>,
}

impl Index {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Self::parse(&read("modules.dep")?, &read("modules.builtin")?))
    }

    fn parse(dependencies: &str, built_in: &str) -> Self {
        let mut index = Index::default();
        for (path, needs) in dependencies.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            index.modules.insert(canonical(stem(path)), (path.to_owned(), needs));
        }
        index.built_in = built_in.lines().map(|path| canonical(stem(path))).collect();
        index
    }

    /// Paths of the wanted modules and of all that they need; none comes before one that it needs.
    fn in_order(&self, wanted: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut order = Vec::new();
        for name in wanted.iter().map(|name| canonical(name)) {
            match self.modules.get(&name) {
                Some((path, _)) => self.add(path, &mut order),
                None if self.built_in.contains(&name) => {}
                None => bail!("the kernel has no module {name}"),
            }
        }
        Ok(order)
    }

    fn add(&self, path: &str, order: &mut Vec<String>) {
        if order.iter().any(|known| known == path) {
            return;
        }
        if let Some((_, needs)) = self.modules.get(&canonical(stem(path))) {
            for need in needs {
                self.add(need, order);
            }
        }
        order.push(path.to_owned());
    }
}

/// Builds the test NIC's module, unless that was done from the same sources for the same kernel.
///
/// # Errors
/// It does not compile, or a tool is missing.
pub(crate) fn build(packages: &Packages, store: &Path) -> anyhow::Result<Vec<Module>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("nic");
    ensure!(sources.is_dir(), "the test NIC's sources are missing: {}", sources.display());
    let folder = store.join("nic").join(&packages.release);
    if !is_copy(&sources, &folder)? || objects(&folder)?.is_empty() {
        compile(packages, &sources, &folder)?;
    }
    let modules = objects(&folder)?;
    ensure!(!modules.is_empty(), "building {} gave no module", sources.display());
    Ok(modules)
}

fn compile(packages: &Packages, sources: &Path, folder: &Path) -> anyhow::Result<()> {
    println!("kernel-lab: building the test NIC ...");
    // Also what an earlier build for other sources left.
    let _ = fs::remove_dir_all(folder);
    for file in tool::files_below(sources)? {
        let target = folder.join(file.strip_prefix(sources)?);
        fs::create_dir_all(target.parent().context("a file has a folder")?)?;
        fs::copy(&file, target)?;
    }
    let mut make = Command::new("make");
    // Type information of modules needs a program that nothing else here needs.
    make.arg("-C").arg(packages.headers()).arg(format!("M={}", folder.display())).arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
    tool::output(make.arg("modules")).context("building the test NIC").map(drop)
}

/// Whether each source file lies in the build folder as it is.
fn is_copy(sources: &Path, folder: &Path) -> anyhow::Result<bool> {
    for file in tool::files_below(sources)? {
        let copy = folder.join(file.strip_prefix(sources)?);
        if fs::read(copy).ok() != Some(fs::read(&file)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn objects(folder: &Path) -> anyhow::Result<Vec<Module>> {
    let files = if folder.is_dir() { tool::files_below(folder)? } else { Vec::new() };
    let modules = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "ko"));
    Ok(modules
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Module { name, parameters: NIC_PARAMETERS, path }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/net/ipv4/esp4_offload.ko.xz: kernel/net/ipv4/esp4.ko.xz kernel/net/xfrm/xfrm_algo.ko.xz\n\
                                kernel/net/ipv4/esp4.ko.xz: kernel/net/xfrm/xfrm_algo.ko.xz\n\
                                kernel/net/xfrm/xfrm_algo.ko.xz:\nkernel/drivers/net/tun.ko.xz:\n";

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let index = Index::parse(DEPENDENCIES, "kernel/crypto/sha1_generic.ko\n");
        let order = index.in_order(&["esp4-offload", "sha1-generic", "esp4"]).unwrap();
        let names: Vec<&str> = order.iter().map(|path| stem(path)).collect();
        assert_eq!(names, ["xfrm_algo", "esp4", "esp4_offload"]);
        assert!(index.in_order(&["esp7"]).is_err());
    }
}
