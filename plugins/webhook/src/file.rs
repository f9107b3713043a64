//! Reading files that settings name: regular ones only, and no more than such a file has. Whoever waits for a named pipe to be written to, or for the
//! end of a device, delivers nothing meanwhile.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// Reads a file of at most `most` octets.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer; the path is in it, and nothing of what stands there.
pub(crate) fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let file = open(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    // Room for all of it at once: what is left behind by growing would not be wiped.
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or_default() + 1));
    let length = file.take(most + 1).read_to_end(&mut octets);
    match length.map_err(|error| format!("{shown} cannot be read: {error}"))? {
        length if length as u64 > most => Err(format!("{shown} is longer than {most} octets")),
        _ => Ok(octets),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let regular = |file: &fs::Metadata| match file.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    };
    // A device may do something when it is merely opened.
    regular(&fs::metadata(path)?)?;
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    // Somebody may have put another one there meanwhile.
    regular(&file.metadata()?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_likely_length_are_read() {
        let directory = std::env::temp_dir().join(format!("webhook-file-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (text, pipe) = (directory.join("text"), directory.join("pipe"));
        fs::write(&text, "1234").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(**read(&text, 4).unwrap(), *b"1234");
        let wrong = |path: &Path| read(path, 3).unwrap_err();
        assert!(wrong(&text).ends_with("text is longer than 3 octets"), "{}", wrong(&text));
        for path in [&*pipe, &directory, Path::new("/dev/zero")] {
            assert!(wrong(path).ends_with("no regular file"), "{}", wrong(path));
        }
        assert!(wrong(&directory.join("none")).contains("none cannot be read: No such file"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
