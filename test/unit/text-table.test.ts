import { expect, test } from 'vitest';
import { aligned, shown, textTable } from '../../dist/cli/text-table.js';

test('columns are aligned, and the last one is cut to the width', () => {
  const columns = [{ head: 'id', right: true }, { head: 'key', maxWidth: 5 }, { head: 'message' }];
  const rows = [
    ['1', 'a', 'short'],
    ['100', 'très long', 'x'.repeat(50)],
  ];
  expect(textTable(columns, rows, 40).split('\n')).toEqual([
    ' id  key    message',
    '  1  a      short',
    `100  très…  ${'x'.repeat(27)}…`,
  ]);
  const whole = textTable(columns, rows, Number.POSITIVE_INFINITY);
  expect(whole).toContain('x'.repeat(50));
  for (const width of [10, 20, 30, 35]) {
    const widest = Math.max(
      ...textTable(columns, rows, width)
        .split('\n')
        .map((line) => line.length),
    );
    expect(widest).toBeLessThanOrEqual(width);
  }
  const keys = textTable([{ head: 'key', maxWidth: 40 }, { head: 'message' }], [['k'.repeat(60), 'm'.repeat(60)]], 40);
  expect(keys.split('\n')[1]).toBe(`${'k'.repeat(17)}…  ${'m'.repeat(19)}…`);
});

test('nothing in a cell moves the cursor, breaks the line or turns the text around', () => {
  expect(shown('\x1b[2J\r\n\t\x9b\u202e\u2028\ud800é漢')).toBe(
    '\\x1b[2J\\x0d\\x0a\\x09\\x9b\\u{202e}\\u{2028}\\u{d800}é漢',
  );
  expect(textTable([{ head: 'a' }], [['x\ny']], 80)).toBe('a\nx\\x0ay');
});

test('rows of any width are aligned: numbers to the right, and no cell can move the cursor', () => {
  expect(
    aligned([
      ['a', 5, 'x'],
      ['\u{1f600}\u001b', 12, ''],
    ]),
  ).toEqual(['a       5  x', '\u{1f600}\\x1b  12']);
});
