//! Several requests of one call at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Requests under way at a time: enough to hide the way to the server, few enough not to be taken for an attack.
const AT_ONCE: usize = 16;

/// What `work` gives for each item, in their order. The threads are gone when it returns: who asks may need a process
/// with a single thread afterwards. After the first error nothing new is begun.
pub(super) fn all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    if let [one] = items {
        return Ok(vec![work(one)?]);
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::with_capacity(items.len()), None));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
                    match result {
                        Ok(result) => done.0.push((at, result)),
                        Err(error) => {
                            next.store(items.len(), Ordering::Relaxed);
                            done.1.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    let (mut results, failed) = done.into_inner().unwrap_or_else(|e| e.into_inner());
    if let Some(error) = failed {
        return Err(error);
    }
    if results.len() < items.len() {
        return Err(Error::machine("a request to a remote was lost"));
    }
    results.sort_unstable_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_their_items() {
        let items: Vec<u64> = (0..100).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = all(&items, |n| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(n % 3));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(n * n)
        });
        assert_eq!(results.unwrap(), items.iter().map(|n| n * n).collect::<Vec<_>>());
        let most = most.into_inner();
        assert!(most > 1 && most <= AT_ONCE, "{most} at a time");
        assert!(all(&[], |_: &u64| -> Result<()> { panic!("nothing is asked for") }).unwrap().is_empty());
    }

    #[test]
    fn nothing_new_is_begun_after_an_error() {
        let items: Vec<usize> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        let failed = all(&items, |n| match begun.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::machine(format!("the first, {n}"))),
            _ => {
                std::thread::sleep(Duration::from_millis(50));
                Ok(())
            }
        });
        assert!(failed.unwrap_err().to_string().contains("the first"));
        assert!(begun.into_inner() < 3 * AT_ONCE);
    }
}
