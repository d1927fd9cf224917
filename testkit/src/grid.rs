//! A matrix at an unaligned place in its buffer: one element from the start, with gaps between the rows.

use crate::data::{self, Kind, Rng};
use crate::storage::Storage;

/// Elements preceding the first row, so that no row is aligned to more than an element.
const OFFSET: usize = 1;
/// Elements after the last row.
const AFTER: usize = 17;

/// A matrix in a buffer whose other elements are guards. They are NaN, so that the result of an operation that reads one is
/// NaN, and [`Grid::assert_guards`] finds an operation that wrote one.
#[derive(Debug, Clone)]
pub struct Grid<T> {
    buffer: Vec<T>,
    rows: usize,
    cols: usize,
    gap: usize,
}

impl<T: Storage> Grid<T> {
    /// A matrix of these values, with `gap` guards between rows.
    ///
    /// # Panics
    /// When the number of values is not `rows * cols`.
    pub fn new(values: &[T], (rows, cols): (usize, usize), gap: usize) -> Grid<T> {
        assert_eq!(values.len(), rows * cols);
        let mut grid = Grid { buffer: Vec::new(), rows, cols, gap };
        grid.buffer = vec![guard(); OFFSET + rows * grid.stride() + AFTER];
        for i in 0..rows {
            let start = OFFSET + i * grid.stride();
            grid.buffer[start..start + cols].copy_from_slice(&values[i * cols..(i + 1) * cols]);
        }
        grid
    }

    /// A matrix of random values.
    pub fn random(rng: &mut Rng, kind: Kind, (rows, cols): (usize, usize), gap: usize) -> Grid<T> {
        Grid::new(&data::values(rng, kind, rows * cols), (rows, cols), gap)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn stride(&self) -> usize {
        self.cols + self.gap
    }

    /// The slice from the first element on, with the guards after it.
    pub fn slice(&self) -> &[T] {
        &self.buffer[OFFSET..]
    }

    /// [`Grid::slice`], mutably.
    pub fn slice_mut(&mut self) -> &mut [T] {
        &mut self.buffer[OFFSET..]
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[T] {
        &self.slice()[i * self.stride()..][..self.cols]
    }

    /// Row `i`, mutably.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        let (start, cols) = (i * self.stride(), self.cols);
        &mut self.slice_mut()[start..][..cols]
    }

    /// The element at row `i` and column `j`.
    pub fn at(&self, i: usize, j: usize) -> T {
        self.row(i)[j]
    }

    /// The elements, row after row, without the guards.
    pub fn values(&self) -> Vec<T> {
        (0..self.rows).flat_map(|i| self.row(i).iter().copied()).collect()
    }

    /// The elements as f64, row after row.
    pub fn exact(&self) -> Vec<f64> {
        self.values().into_iter().map(T::to_f64).collect()
    }

    /// Fails when a guard was overwritten.
    ///
    /// # Panics
    /// When one was.
    #[track_caller]
    pub fn assert_guards(&self) {
        for (at, x) in self.buffer.iter().enumerate() {
            let inside = at.checked_sub(OFFSET).is_some_and(|at| {
                self.stride() > 0 && at / self.stride() < self.rows && at % self.stride() < self.cols
            });
            assert!(
                inside || x.bits() == guard::<T>().bits(),
                "the guard at {at} was overwritten with {x:?}"
            );
        }
    }
}

/// A NaN with a payload that no operation produces.
fn guard<T: Storage>() -> T {
    let nan = T::from_f32(f32::NAN).bits();
    T::from_bits(nan | 0b101)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn values_are_stored_and_guards_are_nan<T: Storage>() {
        let mut rng = Rng::new(5);
        let mut grid = Grid::<T>::random(&mut rng, Kind::Uniform, (3, 5), 2);
        assert_eq!(grid.values().len(), 15);
        assert_eq!(grid.at(2, 4), grid.slice()[2 * 7 + 4]);
        assert!(grid.slice()[5].to_f32().is_nan() && grid.slice()[3 * 7].to_f32().is_nan());
        grid.row_mut(1)[0] = T::default();
        grid.assert_guards();
        Grid::<T>::new(&[], (0, 4), 1).assert_guards();
        Grid::<T>::new(&[], (4, 0), 0).assert_guards();
    }

    #[test]
    fn a_grid_holds_its_values() {
        values_are_stored_and_guards_are_nan::<f32>();
        values_are_stored_and_guards_are_nan::<bf16>();
        values_are_stored_and_guards_are_nan::<f16>();
    }

    #[test]
    #[should_panic(expected = "overwritten")]
    fn a_write_into_a_gap_is_found() {
        let mut grid = Grid::<f32>::new(&[1.0; 6], (2, 3), 1);
        grid.slice_mut()[3] = f32::NAN;
        grid.assert_guards();
    }
}
