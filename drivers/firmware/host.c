/* board.c on a computer: the serial line is a file, the converter a table that its words are decoded into, inputs read channels 0 to 7.
 *
 *   cc -std=c11 -o board board.c host.c        ./board SERIAL BOOT < line > line
 *
 * SIGUSR1 presses the key SAFE. A line of JSON on stderr tells when the codes of the converter became safe, and when others. */
#define _POSIX_C_SOURCE 200809L
#include "hal.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CHANNELS 40

static uint16_t converter[64];
static volatile sig_atomic_t key;
static uint32_t boot;

static void pressed(int number)
{
    (void)number;
    key = 1;
}

uint32_t hal_boot(void) { return boot; }

uint32_t hal_millis(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

void hal_delay_us(uint32_t us)
{
    struct timespec wait = {us / 1000000, (long)(us % 1000000) * 1000};
    if (us)
        nanosleep(&wait, NULL);
}

void hal_spi24(uint32_t word)
{
    if (word >> 22 == 0 && (word >> 14 & 3) == 3) /* not A/B, a write, the data register */
        converter[word >> 16 & 63] = word & 0x3FFF;
}

uint16_t hal_adc(uint8_t input) { return (uint16_t)((uint32_t)converter[input] * 65535 / 16383); }

void hal_send(const uint8_t *bytes, size_t count)
{
    while (count) {
        ssize_t written = write(STDOUT_FILENO, bytes, count);
        if (written <= 0)
            exit(1);
        bytes += written, count -= (size_t)written;
    }
}

int hal_safe_key(void)
{
    int was = key;
    key = 0;
    return was;
}

static void tell(void)
{
    static int before = -1;
    int safe = 1;
    for (int channel = 0; channel < CHANNELS; channel++)
        safe = safe && !converter[channel];
    if (safe != before)
        fprintf(stderr, "{\"codes\": \"%s\"}\n", safe ? "safe" : "others");
    before = safe;
}

int main(int argc, char **argv)
{
    struct pollfd line = {STDIN_FILENO, POLLIN, 0};
    struct sigaction on_key = {.sa_handler = pressed};
    uint8_t bytes[4096];
    boot = argc > 2 ? (uint32_t)atoi(argv[2]) : 1;
    sigaction(SIGUSR1, &on_key, NULL);
    setvbuf(stderr, NULL, _IOLBF, 0);
    for (int channel = 0; channel < CHANNELS; channel++)
        converter[channel] = 0x3FFF; /* whatever it holds when the power comes on */
    board_setup(argc > 1 ? argv[1] : "HOST");
    for (;;) {
        if (poll(&line, 1, 5) > 0) {
            ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
            if (count <= 0)
                return 0;
            for (ssize_t k = 0; k < count; k++)
                board_byte(bytes[k]);
        }
        board_tick();
        tell();
    }
}
