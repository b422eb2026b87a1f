//! The terminal: taken over, read, and given back, whatever happens.

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Key, Model};
use super::view;

/// The alternate screen in raw mode, until dropped. A panic gives it back too, before its
/// message is written (`ratatui::try_init` hooks it).
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    colour: bool,
}

impl Screen {
    pub(super) fn open(colour: bool) -> io::Result<Screen> {
        Ok(Screen {
            terminal: ratatui::try_init()?,
            colour,
        })
    }

    pub(super) fn draw(&mut self, model: &Model) -> io::Result<()> {
        let colour = self.colour;
        self.terminal
            .draw(|frame| view::draw(frame, model, colour))
            .map(drop)
    }

    /// The next key within `limit`. `None`: there was none, or something else happened,
    /// such as another size; either way it is time to draw.
    pub(super) fn key(&self, limit: Duration) -> io::Result<Option<Key>> {
        match event::poll(limit) {
            Ok(true) => Ok(match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => meaning(key),
                _ => None,
            }),
            Ok(false) => Ok(None),
            // A signal; whether it ends the program is asked elsewhere.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails where the terminal is gone, and then nothing is left to restore.
        ratatui::try_restore().unwrap_or_default();
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char(_) if control || key.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_letters_are_no_letters() {
        let key = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        assert_eq!(
            key(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Key::Interrupt)
        );
        assert_eq!(key(KeyCode::Char('s'), KeyModifiers::CONTROL), None);
        assert_eq!(key(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Key::Char('?')));
        assert_eq!(key(KeyCode::F(1), KeyModifiers::NONE), None);
    }
}
