//! The guest's file system: a cpio archive that the kernel unpacks into memory.

use anyhow::{Context, Result};
use cpio::newc::{self, Builder, ModeFileType};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// An archive in the making. Paths are absolute, as in the guest; folders come by themselves.
pub(super) struct Initramfs {
    output: BufWriter<File>,
    folders: BTreeSet<String>,
    number: u32,
}

impl Initramfs {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self {
            output: BufWriter::new(file),
            folders: BTreeSet::new(),
            number: 0,
        })
    }

    /// Adds a file of the host as a program or library.
    pub(super) fn add(&mut self, path: &str, source: &Path) -> Result<()> {
        let bytes = fs::read(source).with_context(|| format!("can't read {}", source.display()))?;
        self.add_bytes(path, &bytes)
    }

    /// Adds a file with this content.
    pub(super) fn add_bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.add_folders(path)?;
        Ok(self.entry(path, ModeFileType::Regular, bytes)?)
    }

    /// Adds an empty folder.
    pub(super) fn add_folder(&mut self, path: &str) -> Result<()> {
        self.add_folders(&format!("{path}/"))
    }

    /// Completes the file.
    pub(super) fn finish(mut self) -> Result<()> {
        newc::trailer(&mut self.output)?;
        Ok(self.output.flush()?)
    }

    /// The folders above a path, each once.
    fn add_folders(&mut self, path: &str) -> Result<()> {
        let ends = path.char_indices().skip(1).filter(|(_, it)| *it == '/');
        for (end, _) in ends {
            let folder = &path[..end];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, ModeFileType::Directory, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, bytes: &[u8]) -> io::Result<()> {
        self.number += 1;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let builder = Builder::new(path.trim_start_matches('/'))
            .ino(self.number)
            .mode(0o755)
            .set_mode_file_type(kind);
        let mut writer = builder.write(&mut self.output, length);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}
