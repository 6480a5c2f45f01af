import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/setup/seed.ts'],
    // Each file in a process of its own: threads, signals and process warnings must not leak into the next.
    pool: 'forks',
    // One more than the cores that it is meant for: much of the time goes into waiting, for processes, locks and timers.
    maxWorkers: 3,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A test that needs a second try has found something.
    retry: 0,
  },
});
