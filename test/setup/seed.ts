import * as fc from 'fast-check';

/**
 * Every run has a seed, printed once per file, so that any failure can be repeated: SLUICE_SEED=<seed> npx vitest run <file>.
 */
const seed = Number(process.env['SLUICE_SEED'] ?? Math.floor(Math.random() * 0x7fffffff));
process.env['SLUICE_SEED'] = String(seed);
console.log(`seed ${seed}`);
fc.configureGlobal({ seed, endOnFailure: true });
