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
  /** Longer cells are cut; and where there is no room, shorter ones too. */
  readonly maxWidth?: number;
}

const GAP = '  ';

/** The narrowest that the last column, and one that gives way, is made. */
const LAST_MIN = 20;
const CUT_MIN = 8;

/** Aligned columns, cut to `width`: first the last one gives way, then those that have a `maxWidth`. */
export function textTable(columns: readonly TextColumn[], rows: readonly (readonly string[])[], width: number): string {
  const cells = [columns.map(({ head }) => head), ...rows.map((row) => row.map(shown))];
  const widths = columns.map(({ maxWidth = Number.POSITIVE_INFINITY }, i) =>
    Math.min(
      maxWidth,
      cells.reduce((widest, row) => Math.max(widest, lengthOf(row[i] ?? '')), 0),
    ),
  );
  const last = columns.length - 1;
  const others = () => widths.slice(0, last).reduce((sum, one) => sum + one + GAP.length, 0);
  for (const [i, { maxWidth }] of columns.entries()) {
    const excess = Math.max(0, others() + Math.min(LAST_MIN, widths[last] ?? 0) - width);
    const own = widths[i] ?? 0;
    if (i < last && maxWidth !== undefined) widths[i] = Math.max(Math.min(own, CUT_MIN), own - excess);
  }
  widths[last] = Math.max(LAST_MIN, width - others());
  const lines = cells.map((row) => {
    const texts = row.map((cell, i) => cut(cell, widths[i] ?? 0));
    // Nothing stands behind the last one.
    return lineOf(texts, widths.with(last, 0), (i) => columns[i]?.right === true);
  });
  return lines.map((line) => cut(line, width)).join('\n');
}

/** Rows as aligned columns of any width: numbers to the right, all else to the left. */
export function aligned(rows: readonly (readonly (string | number)[])[]): string[] {
  const texts = rows.map((row) => row.map((cell) => shown(String(cell))));
  const widths: number[] = [];
  for (const row of texts) {
    for (const [i, text] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, lengthOf(text));
  }
  return texts.map((row, number) => lineOf(row, widths, (i) => typeof rows[number]?.[i] === 'number'));
}

function lineOf(texts: readonly string[], widths: readonly number[], isRight: (column: number) => boolean): string {
  return texts
    .map((text, i) => {
      const pad = ' '.repeat(Math.max(0, (widths[i] ?? 0) - lengthOf(text)));
      return isRight(i) ? pad + text : text + pad;
    })
    .join(GAP)
    .trimEnd();
}

function cut(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, width - 1).join('')}…`;
}

function lengthOf(text: string): number {
  return [...text].length;
}
