//! Workspaces of fitted methods.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;

/// Memory that a fitted method reuses from batch to batch, such as the buffers of a network. Each scoring thread has
/// one per fitted method; it starts empty.
#[derive(Default)]
pub struct MethodWorkspace(Option<Box<dyn Any + Send>>);

impl MethodWorkspace {
    /// The value, created by `make` on first use.
    pub fn get_or_insert_with<T: Any + Send>(&mut self, make: impl FnOnce() -> T) -> &mut T {
        match self.get_or_try_insert_with(|| Ok::<T, Infallible>(make())) {
            Ok(kept) => kept,
            Err(never) => match never {},
        }
    }

    /// As [`get_or_insert_with`](Self::get_or_insert_with), with a fallible `make`.
    ///
    /// # Errors
    /// The error of `make`.
    pub fn get_or_try_insert_with<T: Any + Send, E>(
        &mut self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<&mut T, E> {
        if !self.0.as_ref().is_some_and(|kept| kept.is::<T>()) {
            self.0 = Some(Box::new(make()?));
        }
        let kept = self.0.as_mut().and_then(|kept| kept.downcast_mut());
        Ok(kept.expect("a value of this type was put there"))
    }
}

impl fmt::Debug for MethodWorkspace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("MethodWorkspace").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_again_where_another_type_is_asked_for() {
        let mut workspace = MethodWorkspace::default();
        workspace.get_or_insert_with(|| vec![1u8]).push(2);
        assert_eq!(*workspace.get_or_insert_with(Vec::<u8>::new), [1, 2]);
        assert_eq!(workspace.get_or_try_insert_with(|| Err::<u32, _>("no")), Err("no"));
        assert_eq!(workspace.get_or_try_insert_with(|| Ok::<u32, &str>(7)), Ok(&mut 7));
        assert!(workspace.get_or_insert_with(Vec::<u8>::new).is_empty());
    }
}
