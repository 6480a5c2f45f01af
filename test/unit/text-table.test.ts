import { expect, test } from 'vitest';
import { shown, textTable } from '../../dist/cli/text-table.js';

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
  // On the narrowest terminal something of the message is left.
  expect(textTable(columns, rows, 10)).toContain(`${'x'.repeat(19)}…`);
});

test('nothing in a cell moves the cursor, breaks the line or turns the text around', () => {
  expect(shown('\x1b[2J\r\n\t\x9b\u202e\u2028\ud800é漢')).toBe(
    '\\x1b[2J\\x0d\\x0a\\x09\\x9b\\u{202e}\\u{2028}\\u{d800}é漢',
  );
  expect(textTable([{ head: 'a' }], [['x\ny']], 80)).toBe('a\nx\\x0ay');
});
