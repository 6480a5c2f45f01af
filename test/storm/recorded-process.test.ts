import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Durability } from 'sluicedb';
import { describe, expect, it } from 'vitest';
import { NO_PRELOAD } from '../support/compiled.ts';
import { type Recording, readRecording, record } from '../support/disk-recorder.ts';
import { layInto } from '../support/laid-disk.ts';
import { Disk, type DiskImage, PROCESS_CRASH } from '../support/power-loss.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';
import { livesFor, type Step } from './recorded-program.ts';
import { noPaths, PATHS } from './recorded-situation.ts';
import { BACKUP, brokenPromise, Contents, DATABASE, type Expectation, look, optionsFor } from './recorded-state.ts';
import { pick, type State, Storm } from './recorded-storm.ts';

/**
 * Power loss under the real process: Node.js, its threads and SQLite. A program is recorded at each durability level, down to every
 * write and sync (disk-recorder.c). Then the disk is built as it could stand if the power had gone at any of these operations
 * (power-loss.ts), opened, and held against what had been acknowledged by then. SLUICE_STORM multiplies the number of states.
 */
const LEVELS: readonly Durability[] = ['memory', 'os', 'interval', 'sync', 'applied'];
const FACTOR = Number(process.env['SLUICE_STORM'] ?? 1);
const CHILD = join(import.meta.dirname, 'recorded-child.mjs');

/** States of each level, and of each recovery from some of them: each differs from all others in at least one byte. */
const STATES = Math.ceil(340 * FACTOR);
const RECOVERIES = 6;
const STATES_OF_RECOVERY = Math.ceil(15 * FACTOR);
/** Of all levels together. */
const ALL_STATES = 2_000 * FACTOR;

/** A state that has broken a promise, and was kept. */
const KEPT = process.env['SLUICE_STORM_STATE'];

if (NO_PRELOAD !== undefined) {
  if (process.env['CI'] !== undefined) throw new Error(`nothing can be recorded: ${NO_PRELOAD}`);
  console.log(`skipped: ${NO_PRELOAD}`);
}

const total = { states: 0, paths: noPaths() };

describe.skipIf(NO_PRELOAD !== undefined || KEPT !== undefined)('power loss in a recorded process', () => {
  for (const [i, durability] of LEVELS.entries()) {
    it(`${durability}: what was promised is there, in its order, whole and once, and the database takes a write`, {
      timeout: 180_000 * Math.max(1, FACTOR),
    }, async () => {
      const random = seededRandom(i);
      const begun = performance.now();
      const { recording, steps } = await recordProgram(durability, livesFor(durability, random));
      const contents = new Contents(steps);
      const recorded = performance.now();
      const storm = new Storm({ durability, steps, contents }, random);
      const worthRecovery = await storm.rage({ label: durability, recording }, STATES);
      const { states } = storm;
      const raged = performance.now();
      // The power may go again while it recovers.
      for (const base of chosen(worthRecovery, random)) {
        const again = await recordRecovery(durability, base.image);
        await storm.rage({ label: `${durability}, in a recovery`, recording: again, base }, STATES_OF_RECOVERY);
      }
      const [a, b, c] = [recorded - begun, raged - recorded, performance.now() - raged].map(Math.round);
      console.log(
        `${durability}: ${recording.length} operations (${a} ms), ${states} states (${b} ms), ${storm.states - states} in recoveries (${c} ms), ` +
          `${storm.built} were built: ${JSON.stringify(storm.tally)}`,
      );
      expect(states).toBeGreaterThanOrEqual(STATES);
      total.states += storm.states;
      for (const path of PATHS) total.paths[path] += storm.tally[path];
    });
  }

  it('there were states enough, and every rare path was among them', () => {
    console.log(`${total.states} states of the recorded process: ${JSON.stringify(total.paths)}`);
    expect(total.states).toBeGreaterThanOrEqual(ALL_STATES);
    for (const path of PATHS) expect(total.paths[path], path).toBeGreaterThan(0);
  });
});

describe.runIf(KEPT !== undefined)('a state that was kept', () => {
  it('holds what was promised', async () => {
    const kept = KEPT as string;
    const expectation = JSON.parse(readFileSync(join(kept, 'expected.json'), 'utf8')) as Expectation;
    const disk = join(tempDir(), 'disk');
    cpSync(join(kept, 'disk'), disk, { recursive: true });
    const found = await look(disk, expectation.durability, new Contents(expectation.steps), true);
    expect(brokenPromise(expectation, found)).toBeUndefined();
  });
});

/** Records a program to its end, life after life. */
async function recordProgram(
  durability: Durability,
  lives: readonly (readonly Step[])[],
): Promise<{ readonly recording: Recording; readonly steps: readonly Step[] }> {
  const { disk, program, file } = workplace();
  const places = { file: join(disk, DATABASE), backup: join(disk, BACKUP), options: optionsFor(durability) };
  let steps: readonly Step[] = [];
  for (const life of lives) {
    const from = steps.length;
    steps = [...steps, ...life];
    writeFileSync(program, JSON.stringify({ ...places, steps }));
    const { code, signal, output } = await record(file, disk, CHILD, [program, String(from)]);
    expect([code, output]).toEqual([signal === null ? 0 : null, '']);
    // What was never done is no part of the program, and the next life goes on from there.
    if (signal !== null) steps = steps.slice(0, await doneBefore(disk, durability, steps));
  }
  return { recording: complete(readRecording(file, disk), disk), steps };
}

/** How many steps a process has done that was killed, as a copy of what it left behind has it. */
async function doneBefore(disk: string, durability: Durability, steps: readonly Step[]): Promise<number> {
  const copy = join(tempDir(), 'disk');
  cpSync(disk, copy, { recursive: true });
  const { after } = await look(copy, durability, new Contents(steps), false);
  return after.at(-1) as number;
}

/** Records how the engine recovers from a state. */
async function recordRecovery(durability: Durability, image: DiskImage): Promise<Recording> {
  const { disk, program, file } = workplace();
  layInto(disk, image);
  writeFileSync(program, JSON.stringify({ options: optionsFor(durability) }));
  const ended = await record(file, disk, CHILD, [program, 'open', join(disk, DATABASE)]);
  expect(ended).toEqual({ code: 0, signal: null, output: '' });
  return complete(readRecording(file, disk), disk, image);
}

function workplace(): { readonly disk: string; readonly program: string; readonly file: string } {
  const work = tempDir();
  const disk = join(work, 'disk');
  mkdirSync(disk);
  return { disk, program: join(work, 'program.json'), file: join(work, 'recording') };
}

/** Everything on the disk has come there by what was recorded: nothing went past the recorder. */
function complete(recording: Recording, folder: string, base?: DiskImage): Recording {
  const disk = Disk.from(base);
  for (const { operation } of recording) disk.apply(operation);
  const { files } = disk.image(PROCESS_CRASH, Math.random);
  const there = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile() && !name.endsWith('-shm'))
    .map((name) => `/${name}`);
  expect([...files.keys()].sort()).toEqual(there.sort());
  for (const [path, bytes] of files) expect(readFileSync(join(folder, path)).equals(bytes), path).toBe(true);
  return recording;
}

/** Of the states in which a recovery has something to do, some of each kind. */
function chosen(from: readonly State[], random: () => number): State[] {
  const kinds = [
    from.filter(({ found }) => found.recovery.setAside > 0),
    from.filter(({ found }) => found.recovery.tornBytes > 0),
    from.filter(({ found }) => found.recovered > 0),
  ].filter((kind) => kind.length > 0);
  if (kinds.length === 0) return [];
  return Array.from({ length: RECOVERIES }, (_, i) => pick(kinds[i % kinds.length] as State[], random));
}
