//! Shape checks that the ops share; messages name the op and the shapes.

use tern_shaders::{AnyKernel, Element, Variant};

use crate::{Error, Graph, Kind, Result, Tensor};

impl Graph {
    fn holds(&self, op: &'static str, x: Tensor, element: Element) -> Result<()> {
        if self.element(x) == element {
            return Ok(());
        }
        let (found, shape) = (self.element(x), self.shape(x));
        Err(Error::shape(op, format!("{shape:?} holds {found:?}, expected {element:?}")))
    }

    /// That a tensor holds floats and has elements.
    pub(crate) fn check_floats(&self, op: &'static str, x: Tensor) -> Result<()> {
        self.holds(op, x, Element::F32)?;
        self.check_filled(op, x)
    }

    /// That a tensor holds words and has elements.
    pub(crate) fn check_words(&self, op: &'static str, x: Tensor) -> Result<()> {
        self.holds(op, x, Element::U32)?;
        self.check_filled(op, x)
    }

    fn check_filled(&self, op: &'static str, x: Tensor) -> Result<()> {
        // Kernels count elements of a replica in one word.
        if self.len(x) == 0 || u32::try_from(self.len(x)).is_err() {
            return Err(Error::shape(op, format!("{:?}: 1 to 2^32 - 1 elements", self.shape(x))));
        }
        Ok(())
    }

    /// Whether the device has a way to compute a kernel with these parameters.
    pub(crate) fn computes(&self, kernel: &AnyKernel, params: &impl bytemuck::Pod) -> bool {
        let kind = self.profile().kind;
        let fitting = |v: &Variant| v.takes(bytemuck::bytes_of(params), kind == Kind::Software);
        kind == Kind::Cpu || kernel.variants.iter().any(fitting)
    }

    /// Rows and width of floats seen as a matrix: the last axis, and all before it.
    pub(crate) fn check_rows(&self, op: &'static str, x: Tensor) -> Result<(u32, u32)> {
        self.check_floats(op, x)?;
        match self.shape(x).split_last() {
            Some((width, rows)) => Ok((rows.iter().product::<usize>() as u32, *width as u32)),
            None => Err(Error::shape(op, "[] has no last axis")),
        }
    }

    /// That words are below a limit or [`IGNORE`](crate::IGNORE): those of a data set now, those
    /// of an input when they are written. What a kernel computes is not looked at.
    pub(crate) fn limit_words(&mut self, x: Tensor, limit: usize, of: &str) -> Result<()> {
        let root = self.root(x);
        let Some(info) = self.tensors.get_mut(root) else { return Ok(()) };
        match info.words_below {
            Some(below) if below > limit => {
                let name = format!("largest of the data set's {}", info.label);
                Err(Error::value(name, below - 1, format!("below the {limit} {of}")))
            }
            _ => {
                info.limit = Some(info.limit.map_or(limit, |other| other.min(limit)));
                Ok(())
            }
        }
    }

    /// Rows and classes of logits, and that there is a target for each row.
    pub(crate) fn check_targets(
        &mut self,
        op: &'static str,
        logits: Tensor,
        targets: Tensor,
    ) -> Result<(u32, u32)> {
        let (rows, classes) = self.check_rows(op, logits)?;
        self.check_words(op, targets)?;
        if self.len(targets) != rows as usize {
            let (logits, targets) = (self.shape(logits), self.shape(targets));
            let what = format!("logits {logits:?} with targets {targets:?}, expected one a row");
            return Err(Error::shape(op, what));
        }
        self.limit_words(targets, classes as usize, "classes")?;
        Ok((rows, classes))
    }
}
