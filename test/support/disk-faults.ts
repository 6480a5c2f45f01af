import { errorOf, type MemoryFileSystem, type Operation } from './memory-file-system.ts';

/** One thing that goes wrong with the disk: the `nth` operation of that name, or all from then on. */
export interface Fault {
  readonly operation: Operation['name'];
  readonly nth: number;
  readonly code: string;
  readonly sticky: boolean;
}

/** Says which operations fail, counting from the moment it is made. */
export class DiskFaults {
  #faults: readonly Fault[];
  readonly #counts = new Map<string, number>();

  constructor(faults: readonly Fault[]) {
    this.#faults = faults;
  }

  /** To be called once for every operation. */
  due({ name }: Operation): Fault | undefined {
    const count = this.#counts.get(name) ?? 0;
    this.#counts.set(name, count + 1);
    return this.#faults.find(
      ({ operation, nth, sticky }) => operation === name && (nth === count || (sticky && count > nth)),
    );
  }

  /** The disk is well again. */
  heal(): void {
    this.#faults = [];
  }

  /** Lets them happen, and nothing else. */
  static on(fileSystem: MemoryFileSystem, faults: readonly Fault[]): DiskFaults {
    const made = new DiskFaults(faults);
    fileSystem.before = (operation) => {
      const fault = made.due(operation);
      if (fault === undefined) return;
      throw errorOf(fault.code, operation.path);
    };
    return made;
  }
}
