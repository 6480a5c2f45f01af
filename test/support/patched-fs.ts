import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { onTestFinished } from 'vitest';

/** Makes a synchronous call of node:fs fail once, on a path that ends so; returns how often it has. */
export function failOnce(name: 'renameSync' | 'chmodSync', ending: string, code: string): () => number {
  const original = fs[name] as (...given: unknown[]) => unknown;
  let hits = 0;
  const restore = () => {
    Object.assign(fs, { [name]: original });
    syncBuiltinESMExports();
  };
  Object.assign(fs, {
    [name]: (...given: unknown[]) => {
      if (hits > 0 || !String(given[0]).endsWith(ending)) return original(...given);
      hits++;
      throw Object.assign(new Error(`${code}: made to fail`), { code });
    },
  });
  syncBuiltinESMExports();
  onTestFinished(restore);
  return () => hits;
}
