/* What a microcontroller has to offer to board.c. host.c offers it on a computer. */
#ifndef HAL_H
#define HAL_H

#include <stddef.h>
#include <stdint.h>

uint32_t hal_boot(void);                             /* a number that grows with every start */
uint32_t hal_millis(void);                           /* since the start; may wrap */
void hal_delay_us(uint32_t us);                      /* waits; the serial line may fill its buffer meanwhile */
void hal_spi24(uint32_t word);                       /* one word to the converter, the highest of 24 bits first */
uint16_t hal_adc(uint8_t input);                     /* one reading of 16 bits, input from 0 */
void hal_send(const uint8_t *bytes, size_t count);   /* to the host */
int hal_safe_key(void);                              /* 1 while the key SAFE is pressed */

/* board.c */
void board_setup(const char *serial);                /* call first: brings the outputs to their safe codes */
void board_byte(uint8_t byte);                       /* call for every byte from the host */
void board_tick(void);                               /* call often, also while nothing comes: watchdog, key, half frames */

#endif
