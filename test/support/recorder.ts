import type { LogFields, Logger } from 'sluicedb';

export type Level = keyof Logger;

export interface Line {
  readonly level: Level;
  readonly fields: LogFields;
  readonly message: string;
}

/** A logger that keeps what it was told. */
export class Recorder implements Logger {
  readonly lines: Line[] = [];

  debug(fields: LogFields, message: string): void {
    this.lines.push({ level: 'debug', fields, message });
  }

  info(fields: LogFields, message: string): void {
    this.lines.push({ level: 'info', fields, message });
  }

  warn(fields: LogFields, message: string): void {
    this.lines.push({ level: 'warn', fields, message });
  }

  error(fields: LogFields, message: string): void {
    this.lines.push({ level: 'error', fields, message });
  }

  /** The lines that are not for debugging, as text, with what went wrong. */
  get said(): string[] {
    return this.lines
      .filter(({ level }) => level !== 'debug')
      .map(({ level, message, fields }) => {
        const { err, errorMessage = (err as Error | undefined)?.message } = fields;
        return [level, message, errorMessage].filter((part) => part !== undefined).join(': ');
      });
  }
}
