//! The arrays of services, written through memory: no system call for each row.
//!
//! Every store is a release, so that who reads a row by way of another one finds what was written before it.

use crate::datapath::bpf::{Cell, Memory};
use crate::datapath::kernel::open_map;
use crate::datapath::pins::Pins;
use crate::datapath::{Error, Map};
use anyhow::{Context as _, Result, ensure};
use bytemuck::Pod;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An array whose rows are whole words, `T`s.
#[derive(Debug)]
pub(super) struct Rows<T> {
    memory: Memory<AtomicU32>,
    map: Map,
    length: u32,
    row: PhantomData<T>,
}

impl<T: Pod> Rows<T> {
    const WIDTH: usize = size_of::<T>() / size_of::<u32>();
    /// From one row to the next: the kernel begins each at a multiple of eight bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(ALIGNMENT) / size_of::<u32>();

    /// Maps the memory of a pinned array.
    ///
    /// # Errors
    /// It is not there, or has other rows.
    pub(super) fn open(pins: &Pins, map: Map) -> Result<Self> {
        let (memory, length) = open::<_, T>(pins, map)?;
        Ok(Self {
            memory,
            map,
            length,
            row: PhantomData,
        })
    }

    /// Writes rows from this one on, all or none, the first word of each first.
    pub(super) fn put(&self, start: u32, rows: &[T]) -> Result<(), Error> {
        self.check(start, rows.len())?;
        for (index, row) in (start as usize..).zip(rows) {
            let words: &[u32] = bytemuck::cast_slice(std::slice::from_ref(row));
            for (word, cell) in words.iter().zip(self.cells(index)) {
                cell.store(*word, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Zeroes a row, its last word first: that of a backend says whether there is one.
    pub(super) fn clear(&self, row: u32) -> Result<(), Error> {
        self.check(row, 1)?;
        for cell in self.cells(row as usize).rev() {
            cell.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// The first rows, as many of these as there are.
    pub(super) fn read(&self, length: u32) -> Vec<T> {
        let length = length.min(self.length) as usize;
        let mut rows = vec![T::zeroed(); length];
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut rows);
        for (index, row) in words.chunks_exact_mut(Self::WIDTH).enumerate() {
            for (word, cell) in row.iter_mut().zip(self.cells(index)) {
                *word = cell.load(Ordering::Acquire);
            }
        }
        rows
    }

    fn check(&self, start: u32, rows: usize) -> Result<(), Error> {
        if start as usize + rows > self.length as usize {
            return Err(Error::Full { map: self.map });
        }
        Ok(())
    }

    fn cells(&self, row: usize) -> impl DoubleEndedIterator<Item = &AtomicU32> {
        let first = row * Self::STRIDE;
        (first..first + Self::WIDTH).map(|index| self.memory.cell(index))
    }
}

/// `SERVICES`: each row is replaced by one store.
#[derive(Debug)]
pub(super) struct Words {
    memory: Memory<AtomicU64>,
    map: Map,
    length: u32,
}

impl Words {
    /// Maps the memory of a pinned array.
    ///
    /// # Errors
    /// It is not there, or has other rows.
    pub(super) fn open(pins: &Pins, map: Map) -> Result<Self> {
        let (memory, length) = open::<_, u64>(pins, map)?;
        Ok(Self {
            memory,
            map,
            length,
        })
    }

    /// Replaces a row.
    pub(super) fn put(&self, row: u32, word: u64) -> Result<(), Error> {
        if row >= self.length {
            return Err(Error::Full { map: self.map });
        }
        self.memory
            .cell(row as usize)
            .store(word, Ordering::Release);
        Ok(())
    }

    /// All rows.
    pub(super) fn read(&self) -> impl Iterator<Item = u64> {
        let rows = (0..self.length).map(|row| self.memory.cell(row as usize));
        rows.map(|cell| cell.load(Ordering::Acquire))
    }
}

const ALIGNMENT: usize = 8;

/// The memory of an array of `T`s, and how many there are.
fn open<C: Cell, T>(pins: &Pins, map: Map) -> Result<(Memory<C>, u32)> {
    let data = open_map(pins, map.name())?;
    let info = data.info()?;
    let (size, length) = (info.value_size() as usize, info.max_entries());
    ensure!(size == size_of::<T>(), "{map} has rows of {size} bytes");
    let bytes = length as usize * size.next_multiple_of(ALIGNMENT);
    let memory = Memory::map(data.fd().as_fd(), bytes / size_of::<C>());
    let memory = memory.with_context(|| format!("mapping {map}"))?;
    Ok((memory, length))
}
