/** Calls a function of the user's. What it throws must be seen, and must not come between the engine and its work. */
export function tell<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    setImmediate(() => {
      throw error;
    });
    return undefined;
  }
}
