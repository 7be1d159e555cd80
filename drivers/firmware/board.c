/* A board of converters behind a serial line: the frames of hil/frame_protocol.py, an AD5380 (40 channels of 14 bits), 8 inputs.
 *
 *   armed      LEVELS and ROWS may set channels
 *   disarmed   all channels hold SAFE_CODE: at the start, by SAFE, by the key, by another session, and when nothing valid was heard
 *              for as long as ARM said
 *
 * A frame that comes again is answered from memory and not done again. Needs C11, little-endian numbers and doubles of 8 bytes, as
 * an ARM Cortex-M has. Source of the converter's words: Analog Devices AD5380 data sheet, rev. C, "Serial interface": A/B, R/W, six
 * bits of address, REG1 REG0 = 11 for the data register, 14 bits of data. */
#include "hal.h"

#include <string.h>

#define VERSION 1
#define CHANNELS 40
#define READINGS 8
#define BITS 14
#define FULL ((1u << BITS) - 1)
#define SAFE_CODE 0
#define HIGH_V 5.0
#define LARGEST 4096            /* bytes of a payload: 51 rows */
#define MOST_AVERAGES 1000
#define LONGEST_US 1000000u     /* of all rows of a frame: meanwhile neither key nor watchdog is looked at */
#define HEAD 12
#define GAP_MS 250

_Static_assert(sizeof(double) == 8, "doubles of 8 bytes are needed");

enum { HELLO = 1, ARM = 7, SAFE = 8, STATUS = 9, DESCRIBE = 10, LEVELS = 11, ROWS = 12, REPLY = 0x80 };
enum { DONE = 0, BAD_CRC = 1, UNKNOWN_KIND = 2, BAD_PAYLOAD = 3, OUT_OF_RANGE = 5, NOT_ARMED = 7, WATCHDOG = 8, TOO_LONG = 10 };

static uint8_t in[HEAD + LARGEST + 2], out[HEAD + LARGEST + 2];
static size_t held, sent;
static uint16_t codes[CHANNELS];
static uint32_t session, heard_ms, byte_ms, bad_frames, watchdog_ms;
static uint8_t armed, tripped, lost;
static struct { uint8_t kind, valid; uint16_t seq, crc; } last;
static char identity[64];

static uint16_t crc16(uint16_t crc, const uint8_t *data, size_t count)
{
    while (count--) {
        crc ^= (uint16_t)(*data++ << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

static void set_channel(uint8_t channel, uint16_t code)
{
    codes[channel] = code;
    hal_spi24((uint32_t)channel << 16 | 3u << 14 | code);
}

static void disarm(void)
{
    armed = 0;
    for (uint8_t channel = 0; channel < CHANNELS; channel++)
        set_channel(channel, SAFE_CODE);
}

/* Send what stands in out + HEAD as the payload of a reply. */
static void answer(uint8_t kind, uint8_t code, uint16_t seq, size_t size)
{
    uint32_t length = (uint32_t)size;
    uint16_t crc;
    out[0] = 0xA5, out[1] = 0x5A, out[2] = kind | REPLY, out[3] = code;
    memcpy(out + 4, &seq, 2);
    memcpy(out + 6, &length, 4);
    crc = crc16(0xFFFF, out, 10);
    memcpy(out + 10, &crc, 2);
    crc = crc16(crc, out + HEAD, size);
    memcpy(out + HEAD + size, &crc, 2);
    sent = HEAD + size + 2;
    hal_send(out, sent);
}

static void refuse(uint8_t kind, uint8_t code, uint16_t seq, const char *reason)
{
    size_t size = strlen(reason);
    memcpy(out + HEAD, reason, size);
    answer(kind, code, seq, size);
}

static size_t hello(const uint8_t *payload)
{
    uint8_t *to = out + HEAD;
    uint16_t version = VERSION;
    uint32_t wanted, boot = hal_boot(), largest = LARGEST, free_room = 0;
    double limit = HIGH_V;
    memcpy(&wanted, payload + 2, 4);
    if (wanted != session) {
        session = wanted, tripped = 0, last.valid = 0;
        disarm();
    }
    memcpy(to, &version, 2), memcpy(to + 2, &boot, 4), memcpy(to + 6, &session, 4), memcpy(to + 10, &largest, 4);
    memcpy(to + 14, &free_room, 4), memcpy(to + 18, &limit, 8);
    memcpy(to + 26, identity, strlen(identity));
    return 26 + strlen(identity);
}

static size_t describe(void)
{
    uint8_t *to = out + HEAD;
    uint16_t counts[2] = {CHANNELS, READINGS}, safe = SAFE_CODE;
    double ranges[4] = {0.0, HIGH_V, 0.0, HIGH_V};
    memcpy(to, counts, 4), to[4] = BITS, to[5] = 16, memcpy(to + 6, &safe, 2), memcpy(to + 8, ranges, 32);
    return 40;
}

static int in_range(const uint8_t *from, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        uint16_t code;
        memcpy(&code, from + 2 * k, 2);
        if (code > FULL)
            return 0;
    }
    return 1;
}

static void set_all(const uint8_t *from)
{
    for (uint8_t channel = 0; channel < CHANNELS; channel++) {
        uint16_t code;
        memcpy(&code, from + 2 * channel, 2);
        if (code != codes[channel])
            set_channel(channel, code);
    }
}

static size_t go_through(const uint8_t *rows, uint32_t settle_us, uint16_t averages, uint16_t count)
{
    for (uint16_t row = 0; row < count; row++) {
        set_all(rows + 2 * CHANNELS * row);
        hal_delay_us(settle_us);
        for (uint8_t input = 0; input < READINGS; input++) {
            uint32_t sum = 0;
            for (uint16_t k = 0; k < averages; k++)
                sum += hal_adc(input);
            memcpy(out + HEAD + 4 * (READINGS * row + input), &sum, 4);
        }
    }
    return 4u * READINGS * count;
}

/* One whole frame that was received undamaged. */
static void request(uint8_t kind, uint16_t seq, uint16_t crc, const uint8_t *payload, size_t size)
{
    size_t reply = 0;
    heard_ms = hal_millis();
    if (last.valid && last.kind == kind && last.seq == seq && last.crc == crc) {
        hal_send(out, sent);
        return;
    }
    last.valid = kind != HELLO, last.kind = kind, last.seq = seq, last.crc = crc;
    if (kind == HELLO && size == 6) {
        reply = hello(payload);
    } else if (kind == ARM && size == 8) {
        double watchdog_s;
        memcpy(&watchdog_s, payload, 8);
        if (!(watchdog_s >= 0 && watchdog_s < 1e6)) {
            refuse(kind, OUT_OF_RANGE, seq, "watchdog");
            return;
        }
        watchdog_ms = (uint32_t)(watchdog_s * 1e3), tripped = 0, armed = 1;
        if (watchdog_s > 0 && !watchdog_ms)
            watchdog_ms = 1; /* 0 would be never */
    } else if (kind == SAFE && size == 0) {
        disarm();
        tripped = 0;
    } else if (kind == STATUS && size == 0) {
        uint16_t none = 0;
        out[HEAD] = armed, out[HEAD + 1] = tripped, memcpy(out + HEAD + 2, &none, 2), memcpy(out + HEAD + 4, &bad_frames, 4);
        reply = 8;
    } else if (kind == DESCRIBE && size == 0) {
        reply = describe();
    } else if ((kind == LEVELS && size) || kind == ROWS) {
        uint32_t settle_us = 0;
        uint16_t averages = 1, rows = 1;
        const uint8_t *from = payload;
        if (kind == ROWS && size >= 8) {
            memcpy(&settle_us, payload, 4), memcpy(&averages, payload + 4, 2), memcpy(&rows, payload + 6, 2);
            from += 8, size -= 8;
        }
        if (!armed)
            refuse(kind, tripped ? WATCHDOG : NOT_ARMED, seq, tripped ? "nothing was heard for too long" : "ARM first");
        else if (size != 2u * CHANNELS * rows)
            refuse(kind, BAD_PAYLOAD, seq, "another number of codes");
        else if (!rows || !averages || averages > MOST_AVERAGES || !in_range(from, (size_t)CHANNELS * rows))
            refuse(kind, OUT_OF_RANGE, seq, "a code, or averages");
        else if (settle_us > LONGEST_US / rows)
            refuse(kind, OUT_OF_RANGE, seq, "rows that last more than a second");
        else if (kind == ROWS)
            answer(kind, DONE, seq, go_through(from, settle_us, averages, rows));
        else {
            set_all(from);
            memcpy(out + HEAD, codes, sizeof codes);
            answer(kind, DONE, seq, sizeof codes);
        }
        heard_ms = hal_millis(); /* rows may have taken their time */
        return;
    } else if (kind == LEVELS) {
        memcpy(out + HEAD, codes, sizeof codes);
        reply = sizeof codes;
    } else {
        int known = kind == HELLO || (kind >= ARM && kind <= ROWS);
        refuse(kind, known ? BAD_PAYLOAD : UNKNOWN_KIND, seq, known ? "a payload of another size" : "no such kind");
        return;
    }
    answer(kind, DONE, seq, reply);
}

/* Step over a head that cannot be read, and complain once until a good frame has come. */
static void damage(uint8_t kind, uint8_t code, uint16_t seq)
{
    memmove(in, in + 2, held -= 2);
    if (lost)
        return;
    lost = 1, bad_frames++, last.valid = 0;
    answer(kind, code, seq, 0);
}

void board_byte(uint8_t byte)
{
    byte_ms = hal_millis();
    in[held++] = byte;
    for (;;) {
        size_t skip = 0;
        uint16_t seq, crc, whole;
        uint32_t length;
        while (skip < held && (in[skip] != 0xA5 || (skip + 1 < held && in[skip + 1] != 0x5A)))
            skip++;
        memmove(in, in + skip, held -= skip);
        if (held < HEAD)
            return;
        memcpy(&seq, in + 4, 2), memcpy(&length, in + 6, 4), memcpy(&crc, in + 10, 2);
        if (crc != crc16(0xFFFF, in, 10)) {
            damage(0, BAD_CRC, 0);
        } else if (length > LARGEST) {
            damage(in[2], TOO_LONG, seq);
        } else if (held < HEAD + length + 2) {
            return;
        } else {
            memcpy(&whole, in + HEAD + length, 2);
            if (whole != crc16(crc, in + HEAD, length)) {
                damage(in[2], BAD_CRC, seq);
                continue;
            }
            lost = 0;
            request(in[2], seq, whole, in + HEAD, length);
            memmove(in, in + HEAD + length + 2, held -= HEAD + length + 2);
        }
    }
}

void board_tick(void)
{
    uint32_t now = hal_millis();
    if (held && now - byte_ms > GAP_MS)
        held = 0, bad_frames++;
    if (armed && hal_safe_key())
        disarm();
    if (armed && watchdog_ms && now - heard_ms > watchdog_ms) {
        disarm();
        tripped = 1;
    }
}

void board_setup(const char *serial)
{
    strcpy(identity, "HIL,DAC-BOARD,");
    strncat(identity, serial, 24);
    strcat(identity, ",1.0c");
    heard_ms = hal_millis();
    disarm();
}
