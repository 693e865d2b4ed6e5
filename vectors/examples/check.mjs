// Checks vectors with Node.js and nothing else:  node check.mjs ../data/*.json
import { createCipheriv, createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

const bytes = hex => Buffer.from(hex, "hex");
const hmac = (key, data) => createHmac("blake2s256", key).update(data).digest();
const kinds = { // one function from inputs to expected for each kind; the rest are skipped
  hash: ({ data }) => ({ hash: createHash("blake2s256").update(bytes(data)).digest("hex") }),
  hmac: ({ key, data }) => ({ hmac: hmac(bytes(key), bytes(data)).toString("hex") }),
  kdf({ key, data, n }) {
    const start = hmac(bytes(key), bytes(data)), outputs = [Buffer.alloc(0)];
    for (let i = 1; i <= n; i++) outputs.push(hmac(start, Buffer.concat([outputs[i - 1], Buffer.of(i)])));
    return { outputs: outputs.slice(1).map(output => output.toString("hex")) };
  },
  aead({ key, counter, plaintext, aad }) {
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64LE(BigInt(counter), 4); // a decimal string: numbers here have 53 bits
    const cipher = createCipheriv("chacha20-poly1305", bytes(key), nonce, { authTagLength: 16 });
    cipher.setAAD(bytes(aad));
    const sealed = Buffer.concat([cipher.update(bytes(plaintext)), cipher.final()]);
    return { sealed: Buffer.concat([sealed, cipher.getAuthTag()]).toString("hex") };
  },
};
let checked = 0, wrong = 0;
for (const path of process.argv.slice(2))
  for (const { kind, tests } of JSON.parse(readFileSync(path)).groups)
    for (const { tcId, inputs, expected } of kind in kinds ? tests : []) {
      checked++;
      if (!isDeepStrictEqual(kinds[kind](inputs), expected)) wrong++, console.log(`${path} tcId ${tcId}: wrong`);
    }
console.log(`${checked} checked, ${wrong} wrong`);
process.exitCode = checked && !wrong ? 0 : 1;
