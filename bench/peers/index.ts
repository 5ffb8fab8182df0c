/** Who is measured beside the library. */

import { JavaScript } from './javascript.js';
import type { AbsentPeer, Peer } from './peer.js';
import { openTfjs } from './tfjs.js';
import { openTorch } from './torch.js';

export * from './peer.js';

/** All peers: those that are here, ready for work, and the others with the reason. */
export async function openPeers(): Promise<{ present: Peer[]; absent: AbsentPeer[] }> {
  const opened = [new JavaScript(), await openTfjs(), await openTorch()];
  return {
    present: opened.filter((peer): peer is Peer => 'load' in peer),
    absent: opened.filter((peer): peer is AbsentPeer => 'reason' in peer),
  };
}
