//! What stands for GPUs where the crate is built without the feature `gpu`: there are none.

use std::convert::Infallible;
use std::sync::MutexGuard;

use tern_shaders::{AnyKernel, Element, Variant};

use super::{AdapterSummary, Call, Data, DeviceOptions, Profile, Timing};
use crate::tuning::Table;
use crate::{Interrupt, Outcome, Result};

/// A GPU that could be opened.
pub(crate) enum Adapter {}

/// The GPUs there are.
pub(crate) async fn enumerate() -> Vec<Adapter> {
    Vec::new()
}

impl Adapter {
    pub fn summary(&self, _: usize) -> AdapterSummary {
        match *self {}
    }

    pub async fn open(&self, _: usize, _: &DeviceOptions) -> Result<Gpu> {
        match *self {}
    }
}

/// Memory of a GPU.
#[derive(Clone)]
pub(crate) struct Memory {
    pub buffer: Infallible,
}

/// A program of a GPU.
pub(crate) enum Program {}

impl Program {
    pub fn variants(&self) -> Vec<&'static str> {
        match *self {}
    }
}

/// What became of self-tests on a GPU.
pub(crate) enum Trust {}

impl Trust {
    pub fn outcome(&self, _: &AnyKernel, _: &Variant) -> Option<&Outcome> {
        match *self {}
    }

    pub fn insert(&mut self, _: &AnyKernel, _: &Variant, _: Outcome) {
        match *self {}
    }

    pub fn run(&self) -> usize {
        match *self {}
    }
}

/// An open GPU.
pub(crate) enum Gpu {}

impl Gpu {
    pub fn name(&self) -> String {
        match *self {}
    }

    pub fn profile(&self) -> Profile {
        match *self {}
    }

    pub fn summary(&self) -> &AdapterSummary {
        match *self {}
    }

    pub fn tuned(&self) -> MutexGuard<'_, Table> {
        match *self {}
    }

    pub fn submits(&self) -> u64 {
        match *self {}
    }

    pub fn created(&self) -> u64 {
        match *self {}
    }

    pub fn allocated(&self) -> u64 {
        match *self {}
    }

    pub fn destroy(&self) {
        match *self {}
    }

    pub fn poll(&self) {
        match *self {}
    }

    #[cfg(feature = "blocking")]
    pub fn wait<T, E>(
        &self,
        _: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        match *self {}
    }

    pub fn pin(&self, _: &AnyKernel, _: &str) -> Result<()> {
        match *self {}
    }

    pub fn supports(&self, _: &Variant) -> bool {
        match *self {}
    }

    pub fn takes(&self, _: &Variant, _: &[u8]) -> bool {
        match *self {}
    }

    pub fn offers(&self, _: &Variant) -> bool {
        match *self {}
    }

    pub fn variant(&self, _: &Call) -> Result<&'static Variant> {
        match *self {}
    }

    pub fn untested(&self, _: &[Call]) -> Option<(&'static AnyKernel, &'static Variant)> {
        match *self {}
    }

    pub fn trust(&self) -> MutexGuard<'_, Trust> {
        match *self {}
    }

    pub async fn prepare(&self, _: &[Call]) {
        match *self {}
    }

    pub fn owns(&self, _: &Memory) -> bool {
        match *self {}
    }

    pub async fn allocate(&self, _: &str, _: usize) -> Result<Memory> {
        match *self {}
    }

    pub fn write(&self, _: &Infallible, _: usize, _: &Data) -> Result<()> {
        match *self {}
    }

    pub async fn read(&self, _: &Infallible, _: usize, _: usize, _: Element) -> Result<Data> {
        match *self {}
    }

    pub fn copy(&self, _: &Infallible, _: usize, _: &Infallible, _: usize, _: usize) -> Result<()> {
        match *self {}
    }

    pub async fn compile(&self, _: Vec<Call>) -> Result<Program> {
        match *self {}
    }

    pub async fn replay(&self, _: &Program, _: usize, _: &Interrupt) -> Result<()> {
        match *self {}
    }

    pub async fn clocked(&self, _: &Program, _: usize) -> Result<Option<f64>> {
        match *self {}
    }

    pub async fn profile_program(&self, _: &Program) -> Result<Vec<Timing>> {
        match *self {}
    }
}
