/**
 * Ends this process with the one that has forked it, whatever a thread of it is doing: an orderly exit would wait for a call of
 * SQLite, which nothing can stop. The parent may have gone while this process was starting, and told nobody.
 */
export function endWithParent(): void {
  const end = () => process.kill(process.pid, 'SIGKILL');
  process.on('disconnect', end);
  if (!process.connected) end();
}
