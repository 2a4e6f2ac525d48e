//! What clients keep between rounds: on the device as far as memory goes, the rest in one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tern_engine::{Data, Device, Element, Vector};

use tern_protocol::{Error, Result};

/// A vector a client, zeros at first. What is stored counts once it is committed. The vectors
/// that were used last stay on the device; the others are records of a file that no name leads to,
/// so that it is gone however the process ends.
pub(super) struct ClientVectors {
    device: Device,
    /// Elements of a vector.
    n: usize,
    /// Vectors on the device at most; at least one.
    limit: usize,
    /// Where the file is.
    folder: PathBuf,
    file: Option<File>,
    zeros: Vector,
    /// By record: two a client, one that counts and one for what is stored next.
    resident: BTreeMap<usize, Resident>,
    /// Records by their last use.
    order: BTreeMap<u64, usize>,
    /// Records that are in the file, unless they are resident.
    spilled: BTreeSet<usize>,
    /// Clients whose second record is the one that counts.
    second: BTreeSet<usize>,
    /// Clients with a vector that isn't committed.
    pending: BTreeSet<usize>,
    /// Memory that is free again.
    free: Vec<Vector>,
    clock: u64,
}

struct Resident {
    vector: Vector,
    used: u64,
}

impl ClientVectors {
    /// Of `n` elements each, `bytes` of them on the device; the file isn't made before it is
    /// needed.
    pub fn new(device: &Device, n: usize, bytes: u64, folder: &Path) -> Result<Self> {
        Ok(ClientVectors {
            device: device.clone(),
            n,
            limit: usize::try_from(bytes / (4 * n as u64)).unwrap_or(usize::MAX).max(1),
            folder: folder.to_path_buf(),
            file: None,
            zeros: Vector::zeros(device, Element::F32, n)?,
            resident: BTreeMap::new(),
            order: BTreeMap::new(),
            spilled: BTreeSet::new(),
            second: BTreeSet::new(),
            pending: BTreeSet::new(),
            free: Vec::new(),
            clock: 0,
        })
    }

    /// Vectors that are in the file and not on the device.
    pub fn spilled(&self) -> usize {
        self.spilled.len()
    }

    /// The record of a client that counts, and the other one.
    fn records(&self, client: usize) -> (usize, usize) {
        let second = usize::from(self.second.contains(&client));
        (2 * client + second, 2 * client + 1 - second)
    }

    /// What was stored counts now.
    pub fn commit(&mut self) {
        for client in std::mem::take(&mut self.pending) {
            self.forget(self.records(client).0);
            if !self.second.remove(&client) {
                self.second.insert(client);
            }
        }
    }

    /// What was stored and not committed is nothing.
    pub fn abandon(&mut self) {
        for client in std::mem::take(&mut self.pending) {
            self.forget(self.records(client).1);
        }
    }

    fn forget(&mut self, record: usize) {
        self.spilled.remove(&record);
        if let Some(Resident { vector, used }) = self.resident.remove(&record) {
            self.order.remove(&used);
            self.free.push(vector);
        }
    }

    /// Copies a client's vector that counts to `to`.
    ///
    /// # Errors
    /// [`Error::File`] if its record can't be read; device errors.
    pub fn load(&mut self, client: usize, to: &Vector) -> Result<()> {
        let (record, _) = self.records(client);
        if let Some(resident) = self.resident.get(&record) {
            to.copy_from(&resident.vector)?;
            self.touch(record);
            return Ok(());
        }
        if !self.spilled.contains(&record) {
            return Ok(to.copy_from(&self.zeros)?);
        }
        let values = self.read(record)?;
        Ok(to.write(&Data::F32(values))?)
    }

    /// A client's vector that counts.
    ///
    /// # Errors
    /// As [`ClientVectors::load`].
    pub fn values(&mut self, client: usize) -> Result<Vec<f32>> {
        let (record, _) = self.records(client);
        match self.resident.get(&record) {
            Some(resident) => Ok(resident.vector.read()?.floats()?),
            None if self.spilled.contains(&record) => self.read(record),
            None => Ok(vec![0.0; self.n]),
        }
    }

    /// Goes on from a client's vector.
    ///
    /// # Errors
    /// As [`ClientVectors::store`].
    pub fn restore(&mut self, client: usize, values: &[f32]) -> Result<()> {
        self.store(client, &Vector::upload(&self.device, &Data::F32(values.to_vec()))?)?;
        self.commit();
        Ok(())
    }

    /// A record in the file.
    fn read(&mut self, record: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; self.n];
        let at = self.place(record);
        let (path, file) = self.file()?;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(&mut values)))
            .map_err(|error| Error::file(path, error))?;
        Ok(values)
    }

    /// Stores a client's vector, to be committed.
    ///
    /// # Errors
    /// [`Error::File`] if another's can't be spilled for it; device errors.
    pub fn store(&mut self, client: usize, from: &Vector) -> Result<()> {
        let (_, record) = self.records(client);
        let vector = match self.resident.remove(&record) {
            Some(Resident { vector, used }) => {
                self.order.remove(&used);
                vector
            }
            None => self.room()?,
        };
        vector.copy_from(from)?;
        self.spilled.remove(&record);
        self.resident.insert(record, Resident { vector, used: 0 });
        self.touch(record);
        self.pending.insert(client);
        Ok(())
    }

    fn touch(&mut self, record: usize) {
        self.clock += 1;
        if let Some(resident) = self.resident.get_mut(&record) {
            self.order.remove(&resident.used);
            resident.used = self.clock;
            self.order.insert(self.clock, record);
        }
    }

    /// Memory for a vector: what is free, or new, or that of the record that wasn't used for
    /// longest, which goes to the file.
    fn room(&mut self) -> Result<Vector> {
        if let Some(vector) = self.free.pop() {
            return Ok(vector);
        }
        let oldest = match self.resident.len() < self.limit {
            true => None,
            false => self.order.first_key_value().map(|(_, record)| *record),
        };
        let Some(record) = oldest else {
            return Ok(Vector::zeros(&self.device, Element::F32, self.n)?);
        };
        if let Some(Data::F32(values)) =
            self.resident.get(&record).map(|resident| resident.vector.read()).transpose()?
        {
            let at = self.place(record);
            let (path, file) = self.file()?;
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.write_all(bytemuck::cast_slice(&values)))
                .map_err(|error| Error::file(path, error))?;
        }
        self.forget(record);
        self.spilled.insert(record);
        self.room()
    }

    /// Where a record starts in the file.
    fn place(&self, record: usize) -> u64 {
        record as u64 * 4 * self.n as u64
    }

    fn file(&mut self) -> Result<(&Path, &mut File)> {
        let folder = &self.folder;
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(folder).map_err(|error| Error::file(folder, error))?,
        };
        Ok((folder, self.file.insert(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_from_device_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::cpu();
        let n = 64;
        // Room for three of ten.
        let mut vectors = ClientVectors::new(&device, n, 3 * 4 * n as u64, folder.path()).unwrap();
        let slot = Vector::zeros(&device, Element::F32, n).unwrap();
        let value = |client: usize, round: usize| Data::F32(vec![(10 * client + round) as f32; n]);
        // The last round that was committed.
        let mut last = None;
        for round in 0..6 {
            // Another order each round, so that what is resident changes.
            for i in 0..10 {
                let client = (i * 7 + round) % 10;
                vectors.load(client, &slot).unwrap();
                let expected = last.map_or(Data::F32(vec![0.0; n]), |last| value(client, last));
                assert_eq!(slot.read().unwrap(), expected, "client {client}, round {round}");
                slot.write(&value(client, round)).unwrap();
                vectors.store(client, &slot).unwrap();
                // Stored twice is stored once.
                vectors.store(client, &slot).unwrap();
            }
            if round % 3 == 1 {
                vectors.abandon();
            } else {
                vectors.commit();
                last = Some(round);
            }
            assert!(vectors.resident.len() <= 3);
            assert_eq!(vectors.resident.len() + vectors.spilled(), 10, "round {round}");
        }
        let (_, file) = vectors.file().unwrap();
        assert!(file.metadata().unwrap().len() <= 2 * 10 * 4 * n as u64);
        drop(vectors);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::cpu();
        let gone = folder.path().join("gone");
        let mut vectors = ClientVectors::new(&device, 64, 0, &gone).unwrap();
        let vector = Vector::zeros(&device, Element::F32, 64).unwrap();
        vectors.store(1, &vector).unwrap();
        let error = vectors.store(2, &vector).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
