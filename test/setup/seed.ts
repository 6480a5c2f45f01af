import * as fc from 'fast-check';
import { beforeEach } from 'vitest';

/**
 * Every run has a seed, printed once per file, and with each failure the command that repeats it.
 */
const seed = Number(process.env['SLUICE_SEED'] ?? Math.floor(Math.random() * 0x7fffffff));
process.env['SLUICE_SEED'] = String(seed);
console.log(`seed ${seed}`);
fc.configureGlobal({ seed, endOnFailure: true });

beforeEach(({ task, onTestFailed }) => {
  onTestFailed(() => {
    const pattern = task.fullTestName.replaceAll(' > ', ' ').replaceAll(/[^\w ]/g, '.');
    console.log(`again: SLUICE_SEED=${seed} npx vitest run ${task.file.name} -t '${pattern}'`);
  });
});
