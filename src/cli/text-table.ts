/** What moves the cursor, turns text around or breaks a line must not come out of a key or a message. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** A text that is safe to show, on one line. */
export function shown(text: string): string {
  return text.replace(UNSAFE, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
  });
}

/** A column of a table. */
export interface TextColumn {
  readonly head: string;
  /** Numbers stand on the right. */
  readonly right?: boolean;
  /** Longer cells are cut. */
  readonly maxWidth?: number;
}

const GAP = '  ';

/** The narrowest that the last column is made. */
const LAST_MIN = 20;

/** Aligned columns, cut to `width`: the last column is what gives way. */
export function textTable(columns: readonly TextColumn[], rows: readonly (readonly string[])[], width: number): string {
  const cells = [columns.map(({ head }) => head), ...rows.map((row) => row.map(shown))].map((row) =>
    row.map((cell, i) => cut(cell, columns[i]?.maxWidth ?? Number.POSITIVE_INFINITY)),
  );
  const widths = columns.map((_, i) => cells.reduce((widest, row) => Math.max(widest, lengthOf(row[i] ?? '')), 0));
  const before = widths.slice(0, -1).reduce((sum, one) => sum + one + GAP.length, 0);
  const lastWidth = Math.max(LAST_MIN, width - before);
  const lines = cells.map((row) =>
    row
      .map((cell, i) => {
        if (i === columns.length - 1) return cut(cell, lastWidth);
        const pad = ' '.repeat((widths[i] ?? 0) - lengthOf(cell));
        return columns[i]?.right ? pad + cell : cell + pad;
      })
      .join(GAP)
      .trimEnd(),
  );
  return lines.join('\n');
}

function cut(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, width - 1).join('')}…`;
}

function lengthOf(text: string): number {
  return [...text].length;
}
