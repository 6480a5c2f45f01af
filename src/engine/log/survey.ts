import { codeOf, SluiceError } from '../../base/errors.ts';
import {
  corrupt,
  isForeign,
  type LogOwner,
  type LogPlace,
  planOf,
  reportOf,
  type Segment,
  scanSegment,
  segmentNames,
  vouchedBy,
} from './recovery.ts';
import { segmentNumber } from './segment.ts';

/** One segment of the log, as it lies there. */
export interface SegmentFacts {
  /** Of the file. */
  readonly name: string;
  /** Segments are numbered in the order in which they were made. */
  readonly number: number;
  /** Size of the file; `null` where it cannot be read. */
  readonly bytes: number | null;
  /** Sequence numbers of the first and the last write in it; `null` where it has none. */
  readonly firstSeq: number | null;
  readonly lastSeq: number | null;
  /** Whole frames, each with one or more writes. */
  readonly frames: number;
  readonly writes: number;
  /** Where its whole frames end. */
  readonly validBytes: number;
  /** What lies behind that and never was on the disk for sure: an unsynced tail, as a crash leaves it. */
  readonly tornBytes: number;
  /** What is wrong with it where it had been synced; `null` for nothing. */
  readonly damage: string | null;
  /** Whether its header names this database and its epoch; `null` where it has no header that can be read. */
  readonly own: boolean | null;
}

/** What the next `open` would do with the log as it is. */
export interface RecoveryForecast {
  /** `nothing`: the log has nothing that is not in the database. `refuse`: `open` would fail, and change nothing. */
  readonly outcome: 'nothing' | 'recover' | 'refuse';
  /** Writes it would replay. */
  readonly writes: number;
  /** Bytes it would cut off the ends of segments. */
  readonly cutBytes: number;
  /** Segments it would rename: of another database or epoch. */
  readonly setAside: readonly string[];
  /** Segments it would delete, since nothing ever was in them. */
  readonly removed: readonly string[];
  /** Why it would refuse, and what to do. */
  readonly refusal: { readonly code: string; readonly message: string } | null;
  /** What `recovery: 'keep-prefix'` would do where the default refuses, if it can help. */
  readonly keepPrefix: {
    readonly writes: number;
    readonly cutBytes: number;
    readonly setAside: readonly string[];
  } | null;
}

/** Something in the log that should not be. */
export interface LogFinding {
  readonly kind: 'header' | 'frame' | 'sequence' | 'gap' | 'format' | 'unreadable';
  readonly segment: string;
  readonly message: string;
}

/** A segment that cannot be judged at all: the disk does not give it, or its format is another version's. */
interface Unread {
  readonly name: string;
  readonly number: number;
  readonly error: SluiceError;
}

/**
 * The log, read once from end to end, and nothing changed. It is read before the watermark, so that of a log that is
 * being written no segment can be missed that was deleted meanwhile: the watermark has passed it by then.
 */
export class LogSurvey {
  readonly #place: LogPlace;
  readonly #segments: readonly Segment[];
  readonly #unread: readonly Unread[];

  private constructor(place: LogPlace, segments: readonly Segment[], unread: readonly Unread[]) {
    this.#place = place;
    this.#segments = segments;
    this.#unread = unread;
  }

  static async read(place: LogPlace): Promise<LogSurvey> {
    const segments: Segment[] = [];
    const unread: Unread[] = [];
    for (const name of await segmentNames(place)) {
      try {
        segments.push(await scanSegment(place, name));
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
        // Applied and deleted since the folder was listed.
        if (codeOf(error.cause) === 'ENOENT') continue;
        unread.push({ name, number: segmentNumber(name) as number, error });
      }
    }
    return new LogSurvey(place, segments, unread);
  }

  get frames(): number {
    return this.#segments.reduce((total, { frames }) => total + frames, 0);
  }

  /** Every segment, in order. `inUse`: the newest one is being written, and its end is not judged. */
  segments(owner: LogOwner, inUse: boolean): SegmentFacts[] {
    const judged = this.#judged(owner, inUse);
    const facts = this.#segments.map((segment): SegmentFacts => {
      const { name, number, header, length, end, first, last, frames } = segment;
      const damage = judged.get(name)?.message ?? null;
      return {
        name,
        number,
        bytes: length,
        firstSeq: frames === 0 ? null : first,
        lastSeq: frames === 0 ? null : last,
        frames,
        writes: frames === 0 ? 0 : last - first + 1,
        validBytes: header === undefined ? 0 : end,
        tornBytes: damage !== null || header === undefined ? 0 : length - end,
        damage,
        own: header === undefined ? null : !isForeign(segment, owner),
      };
    });
    const unread = this.#unread.map(({ name, number, error }): SegmentFacts => {
      const nothing = { bytes: null, firstSeq: null, lastSeq: null, frames: 0, writes: 0, validBytes: 0, tornBytes: 0 };
      return { name, number, ...nothing, damage: error.message, own: null };
    });
    return [...facts, ...unread].sort((a, b) => a.number - b.number);
  }

  forecast(owner: LogOwner): RecoveryForecast {
    const none = { writes: 0, cutBytes: 0, setAside: [], removed: [] };
    const refuse = ({ code, message }: SluiceError, keepPrefix: RecoveryForecast['keepPrefix']): RecoveryForecast => ({
      outcome: 'refuse',
      ...none,
      refusal: { code, message },
      keepPrefix,
    });
    const [unread] = this.#unread;
    if (unread !== undefined) return refuse(unread.error, null);
    const plan = planOf(this.#segments, owner);
    const { writes, setAside } = reportOf(plan, owner.appliedSeq);
    const cutBytes = plan.keep.reduce((total, { length, end }) => total + length - end, 0);
    if (plan.damage !== undefined) {
      const { directory } = this.#place;
      const error = corrupt({ directory, appliedSeq: owner.appliedSeq }, plan.damage.message);
      return refuse(error, { writes, cutBytes, setAside });
    }
    const removed = plan.remove;
    const isIdle = writes + cutBytes + setAside.length + removed.length === 0;
    return {
      outcome: isIdle ? 'nothing' : 'recover',
      writes,
      cutBytes,
      setAside,
      removed,
      refusal: null,
      keepPrefix: null,
    };
  }

  /** What is wrong, whether a recovery would mind or not. */
  findings(owner: LogOwner, inUse: boolean): LogFinding[] {
    const unread = this.#unread.map(
      ({ name, error }): LogFinding => ({
        kind: error.code === 'SLUICE_UNSUPPORTED' ? 'format' : 'unreadable',
        segment: name,
        message: error.message,
      }),
    );
    // What a segment that cannot be read holds is not known: nothing can be said to be missing.
    const gaps = unread.length > 0 ? [] : this.#gaps(owner);
    return [...unread, ...this.#judged(owner, inUse).values(), ...gaps];
  }

  /** The segments that are damaged, by name. */
  #judged(owner: LogOwner, inUse: boolean): Map<string, LogFinding> {
    const found = new Map<string, LogFinding>();
    const own = this.#segments.filter((segment) => !isForeign(segment, owner));
    for (const [i, segment] of own.entries()) {
      if (inUse && i === own.length - 1) continue;
      const vouched = vouchedBy(own[i + 1], segment);
      const finding = findingOf(segment, vouched?.offset);
      if (finding === undefined) continue;
      const isApplied = vouched !== undefined && vouched.lastSeq <= owner.appliedSeq;
      const rest = isApplied ? '; everything in it is applied, no recovery needs it' : '';
      found.set(segment.name, { ...finding, segment: segment.name, message: finding.message + rest });
    }
    return found;
  }

  /** Where writes above the watermark are missing, other than by the damage of a segment that is there. */
  #gaps(owner: LogOwner): LogFinding[] {
    const found: LogFinding[] = [];
    const own = this.#segments.filter((segment) => !isForeign(segment, owner));
    let end = owner.appliedSeq;
    for (const [i, segment] of own.entries()) {
      const { name, header, first, frames, last } = segment;
      // It was made when everything up to its predecessor's last write was in the log, or applied.
      const before = Math.max(header?.previous.lastSeq ?? 0, frames === 0 ? 0 : first - 1);
      if (before > end) {
        const which = before === end + 1 ? `write ${before} is` : `writes ${end + 1} to ${before} are`;
        const message = `${which} neither in the log nor in the database: a segment is lost, or the database is older than its log`;
        found.push({ kind: 'gap', segment: name, message });
      }
      // What the next one vouches for was in this one, though it may be damaged.
      end = Math.max(end, before, last, vouchedBy(own[i + 1], segment)?.lastSeq ?? 0);
    }
    return found;
  }
}

function findingOf(segment: Segment, vouchedOffset: number | undefined): Omit<LogFinding, 'segment'> | undefined {
  const { header, damaged, end, length, outOfOrder } = segment;
  if (header === undefined) {
    // A try to make a segment, given up before anything was in it, is no damage.
    if (!damaged && vouchedOffset === undefined) return undefined;
    return { kind: 'header', message: 'its header is damaged, and nothing in it can be read' };
  }
  if (outOfOrder) {
    return { kind: 'sequence', message: `the whole frame at byte ${end} does not follow the one before it` };
  }
  if (vouchedOffset !== undefined && end < vouchedOffset) {
    const what = end === length ? 'it ends' : 'the frame is damaged';
    return { kind: 'frame', message: `${what} at byte ${end}, though it had been synced up to byte ${vouchedOffset}` };
  }
  if (!damaged) return undefined;
  return { kind: 'frame', message: `the frame at byte ${end} is damaged, and it had been synced` };
}
