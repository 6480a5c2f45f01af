/** A change of one file. */
export interface Edit {
  readonly file: string;
  /** A piece of that file that is there once … */
  readonly find: string;
  /** … and what stands there instead. */
  readonly replace: string;
}

/** A promise taken out of the code, which a test has to miss. */
export interface Mutation {
  /** What is missing, for the table. */
  readonly without: string;
  /** What would come of it. */
  readonly else: string;
  readonly edits: readonly Edit[];
  /** The tests that should notice: the run ends with the first that does. */
  readonly tests: readonly string[];
}

const SIMULATED = 'test/storm/simulated-disk.test.ts';
const RECORDED = 'test/storm/recorded-process.test.ts';
const LOG = 'src/engine/log/append-log.ts';
const RECOVERY = 'src/engine/log/recovery.ts';

export const MUTATIONS: readonly Mutation[] = [
  {
    without: 'fdatasync of the log before a write is acknowledged',
    else: 'what was acknowledged at `sync` is gone after a power cut',
    edits: [
      {
        file: LOG,
        find: '      await segment.file.datasync();\n    } catch (error) {\n      await this.#abandon(segment);',
        replace: '    } catch (error) {\n      await this.#abandon(segment);',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: 'fdatasync of the header of a new segment',
    else: 'a segment whose name is safe begins with nothing',
    edits: [
      {
        file: LOG,
        find: '      await file.datasync();\n      await fileSystem.syncDirectory',
        replace: '      await fileSystem.syncDirectory',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: 'fsync of the folder after a segment was made',
    else: 'the whole segment is gone after a power cut, with what was acknowledged in it',
    edits: [
      {
        file: LOG,
        find: '      await fileSystem.syncDirectory(this.#options.directory);\n    } catch (error) {',
        replace: '    } catch (error) {',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: 'fsync of the folder after segments were deleted',
    else: 'they come back after a power cut, and their room is taken again',
    edits: [
      {
        file: LOG,
        find: '    if (released > 0) await this.#syncDirectory();\n',
        replace: '',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: 'fsync of the folder that the log’s own folder is in',
    else: 'the log is gone after a power cut, with all of it',
    edits: [
      {
        file: 'src/db/open.ts',
        find: '    await fileSystem.syncDirectory(dirname(directory));\n',
        replace: '',
      },
    ],
    tests: [SIMULATED],
  },
  {
    without: 'fdatasync of a segment that recovery goes on from',
    else: 'what a crash had left in the page cache alone is lost by the next power cut, with what came after it',
    edits: [
      {
        file: RECOVERY,
        find: '        await file.datasync();\n',
        replace: '',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: 'fsync of the folder at the end of recovery',
    else: 'what recovery has set aside or deleted comes back',
    edits: [
      {
        file: RECOVERY,
        find: '      await fileSystem.syncDirectory(directory);\n',
        replace: '      await Promise.resolve();\n',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: '`synchronous=FULL` of the flush',
    else: 'segments are deleted whose writes a power cut takes back from the database',
    edits: [
      {
        file: 'src/store/sqlite/writer/writer.ts',
        find: "  db.pragma('synchronous = FULL');\n",
        replace: "  db.pragma('synchronous = NORMAL');\n",
      },
      // It reads the setting back, and would refuse every start.
      {
        file: 'src/store/sqlite/writer/writer.ts',
        find: "this.#db.pragma('synchronous', { simple: true }) !== 2",
        replace: "this.#db.pragma('synchronous', { simple: true }) === 2",
      },
    ],
    tests: [RECORDED],
  },
  {
    without: 'the comparison with the watermark in the transaction of a batch',
    else: 'what was applied before a crash is applied once more',
    edits: [
      {
        file: 'src/store/sqlite/writer/applier.ts',
        find: '    if (state.appliedSeq < lastSeq) this.#applyRange(batch, state.appliedSeq, lastSeq, new Map());',
        replace: '    this.#applyRange(batch, afterSeq, lastSeq, new Map());',
      },
      {
        file: 'src/store/sqlite/writer/applier.ts',
        find: '    if (state.appliedSeq !== afterSeq && !begun) {',
        replace: '    if (state.appliedSeq < afterSeq) {',
      },
      {
        file: 'src/store/sqlite/writer/applier.ts',
        find: 'WHERE owner = ? AND applied_seq = ?',
        replace: 'WHERE owner = ? AND ? >= 0',
      },
    ],
    tests: ['test/integration/thread-death.test.ts', 'test/property/one-by-one.test.ts', 'test/crash/kill.test.ts'],
  },
  {
    without: 'the comparison with the watermark in recovery',
    else: 'frames that are applied are handed to the flush again',
    edits: [
      {
        file: RECOVERY,
        find: '        if (frame.lastSeq >= expected) {',
        replace: '        if (frame.lastSeq >= 0) {',
      },
    ],
    tests: [SIMULATED, RECORDED],
  },
  {
    without: 'the check that a write took all bytes',
    else: 'a torn frame counts as written',
    edits: [
      {
        file: LOG,
        find: '    done += written;\n',
        replace: '    done = bytes.length;\n',
      },
    ],
    tests: [SIMULATED, 'test/integration/log-on-a-bad-disk.test.ts'],
  },
  {
    without: 'the end of a segment whose fdatasync has failed',
    else: 'a second fdatasync succeeds, and what the first one lost counts as safe',
    edits: [
      {
        file: LOG,
        find: '      await segment.file.datasync();\n    } catch (error) {\n      await this.#abandon(segment);\n',
        replace: '      await segment.file.datasync();\n    } catch (error) {\n',
      },
    ],
    tests: [SIMULATED, 'test/integration/log-on-a-bad-disk.test.ts'],
  },
  {
    without: 'fsync of the old segment before the next one is begun',
    else: 'a power cut leaves a hole in the order',
    edits: [
      {
        file: LOG,
        find: '  async seal(): Promise<void> {\n    await this.sync();\n',
        replace: '  async seal(): Promise<void> {\n',
      },
    ],
    tests: [SIMULATED],
  },
  {
    without: 'fsync of the folder after a backup has got its name',
    else: 'the backup is gone after a power cut',
    edits: [
      {
        file: 'src/store/sqlite/copy/replacing.ts',
        find: '  await fileSystem.syncDirectory(dirname(destination)).catch(',
        replace: '  await Promise.resolve().catch(',
      },
    ],
    tests: [RECORDED, 'test/integration/backup.test.ts'],
  },
  {
    without: 'fsync of the folder after `arestore` has swapped the files',
    else: 'writes that were acknowledged after it stand beside the old file after a power cut',
    edits: [
      {
        file: 'src/store/sqlite/sqlite-store.ts',
        find: '      await this.#fileSystem.syncDirectory(dirname(this.#options.path));\n',
        replace: '',
      },
    ],
    tests: [RECORDED, 'test/crash/restore.test.ts'],
  },
  {
    without: 'fsync of the folder after `restore` has swapped the files',
    else: 'the old database is back after a power cut',
    edits: [
      {
        file: 'src/db/restore.ts',
        find: '      await asking(nodeFileSystem.syncDirectory(dirname(path)));\n',
        replace: '',
      },
    ],
    tests: [RECORDED, 'test/crash/restore.test.ts'],
  },
  {
    without: 'fsync of the folder between the WAL that goes and the copy that takes the place of a database',
    else: 'the copy meets the WAL of the database before it',
    edits: [
      {
        file: 'src/store/sqlite/copy/replacing.ts',
        find: '  syncFolder(dirname(path));\n  renameSync',
        replace: '  renameSync',
      },
    ],
    tests: [RECORDED],
  },
  {
    without: 'fsync of the scratch file that tells a full disk from a broken one',
    else: 'a disk that says so at fsync alone counts as sound',
    edits: [{ file: 'src/store/sqlite/writer/space-probe.ts', find: '      fs.fsyncSync(file);\n', replace: '' }],
    tests: ['test/integration/broken-disk.test.ts'],
  },
];
